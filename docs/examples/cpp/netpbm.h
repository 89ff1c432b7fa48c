// Reading color and writing gray images without a library. With OpenCV: cv::imread, cv::cvtColor to RGB, cv::resize,
// cv::imwrite. For the image cv::resize takes INTER_LINEAR_EXACT; where a side shrinks by more than 2, first INTER_AREA to
// the smaller of both sizes along each side, as in run_onnx.py. For the mask it takes INTER_NEAREST_EXACT.
#pragma once

#include <cstdint>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
    int64_t height = 0, width = 0;
    std::vector<uint8_t> pixels;  // height × width × 3, RGB
};

// Read the next word of a header; comments, from # to the end of the line, are skipped.
inline std::string next_word(std::istream& file) {
    std::string word;
    while (file >> word && word[0] == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    return word;
}

// Read the next number of a header; 0 where there is none.
inline int64_t next_number(std::istream& file) {
    const std::string word = next_word(file);
    const bool is_number = word.size() < 10 && word.find_first_not_of("0123456789") == std::string::npos;
    return is_number && !word.empty() ? std::stoll(word) : 0;
}

// Read a binary PPM file (P6, 8 bits), such as `convert street.jpg -resize 480x352! street.ppm` writes. That resizes by
// another filter, so that masks differ a little from those of `segkc-deploy predict`.
inline Image read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    Image image;
    const std::string magic = next_word(file);
    image.width = next_number(file);
    image.height = next_number(file);
    const int64_t largest = next_number(file);
    file.get();
    if (!file || magic != "P6" || largest != 255 || image.width < 1 || image.height < 1)
        throw std::runtime_error(path + ": not a binary 8-bit PPM file");
    image.pixels.resize(static_cast<size_t>(image.height * image.width * 3));
    if (!file.read(reinterpret_cast<char*>(image.pixels.data()), static_cast<std::streamsize>(image.pixels.size())))
        throw std::runtime_error(path + ": cut short");
    return image;
}

// Read an image that the network takes as it is.
inline Image read_ppm(const std::string& path, int64_t height, int64_t width) {
    Image image = read_ppm(path);
    if (image.height != height || image.width != width)
        throw std::runtime_error(path + ": resize it to " + std::to_string(width) + "x" + std::to_string(height));
    return image;
}

// Write a mask of class ids (height × width) as a binary PGM file.
inline void write_pgm(const std::string& path, int64_t height, int64_t width, const uint8_t* mask) {
    std::ofstream file(path, std::ios::binary);
    file << "P5\n" << width << " " << height << "\n255\n";
    file.write(reinterpret_cast<const char*>(mask), height * width);
    if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}
