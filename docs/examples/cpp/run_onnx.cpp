// An image's mask with ONNX Runtime: run_onnx junior-fp32.onnx street.ppm mask.pgm
#include <onnxruntime_cxx_api.h>

#include <array>
#include <filesystem>
#include <iostream>

#include "netpbm.h"

int main(int count, char** arguments) try {
    if (count != 4) throw std::runtime_error("usage: run_onnx model.onnx image.ppm mask.pgm");
    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "run_onnx");
    const std::filesystem::path model(arguments[1]);  // of wide characters on Windows, as the session takes it there
    Ort::Session session(environment, model.c_str(), Ort::SessionOptions());

    const Ort::TypeInfo input = session.GetInputTypeInfo(0);
    const auto shape = input.GetTensorTypeAndShapeInfo().GetShape();  // N, height, width, 3; -1 where it is free
    if (shape.size() != 4 || shape[1] < 1 || shape[2] < 1) throw std::runtime_error("the model has no fixed size");
    Image image = read_ppm(arguments[2], shape[1], shape[2]);

    const std::array<int64_t, 4> one = {1, shape[1], shape[2], 3};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto images =
        Ort::Value::CreateTensor<uint8_t>(memory, image.pixels.data(), image.pixels.size(), one.data(), one.size());
    const char* inputs[] = {"images"};
    const char* outputs[] = {"masks"};
    const auto results = session.Run(Ort::RunOptions(), inputs, &images, 1, outputs, 1);
    write_pgm(arguments[3], shape[1], shape[2], results[0].GetTensorData<uint8_t>());
    return 0;
} catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
}
