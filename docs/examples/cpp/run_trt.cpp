// An image's mask with TensorRT 10 or 11: run_trt junior-fp16.engine street.ppm mask.pgm
//
// Not compiled by this project's tests, which have no TensorRT.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <iostream>
#include <iterator>
#include <memory>

#include "netpbm.h"

namespace {

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << message << "\n";
    }
};

void check(bool fine, const char* what) {
    if (!fine) throw std::runtime_error(std::string(what) + " failed");
}

void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

std::vector<char> read_file(const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(std::string(path) + ": cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

int main(int count, char** arguments) try {
    if (count != 4) throw std::runtime_error("usage: run_trt model.engine image.ppm mask.pgm");
    const std::vector<char> plan = read_file(arguments[1]);
    Logger logger;
    const std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
    check(runtime != nullptr, "starting TensorRT");
    const std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
    check(engine != nullptr, "reading the engine (another GPU or TensorRT version?)");
    const std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());
    check(context != nullptr, "creating the execution context");
    check(engine->getNbIOTensors() == 2, "an engine with images and masks alone: it");

    const nvinfer1::Dims shape = engine->getTensorShape("images");  // N, height, width, 3; -1 where it is free
    if (shape.nbDims != 4 || shape.d[1] < 1 || shape.d[2] < 1) throw std::runtime_error("the engine has no fixed size");
    const Image image = read_ppm(arguments[2], shape.d[1], shape.d[2]);
    std::vector<uint8_t> mask(image.pixels.size() / 3);

    cudaStream_t stream = nullptr;
    void *images = nullptr, *masks = nullptr;
    check(cudaStreamCreate(&stream), "cudaStreamCreate");
    check(cudaMalloc(&images, image.pixels.size()), "cudaMalloc");
    check(cudaMalloc(&masks, mask.size()), "cudaMalloc");
    check(context->setInputShape("images", nvinfer1::Dims4(1, shape.d[1], shape.d[2], 3)), "a batch of one image");
    check(context->setTensorAddress("images", images), "setting the address of images");
    check(context->setTensorAddress("masks", masks), "setting the address of masks");

    check(cudaMemcpyAsync(images, image.pixels.data(), image.pixels.size(), cudaMemcpyHostToDevice, stream), "upload");
    check(context->enqueueV3(stream), "running the engine");
    check(cudaMemcpyAsync(mask.data(), masks, mask.size(), cudaMemcpyDeviceToHost, stream), "download");
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    write_pgm(arguments[3], shape.d[1], shape.d[2], mask.data());

    cudaFree(masks);
    cudaFree(images);
    cudaStreamDestroy(stream);
    return 0;
} catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
}
