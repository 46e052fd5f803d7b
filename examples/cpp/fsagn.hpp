// Explainer files in C++: metadata, preprocessing, masks. onnxruntime, OpenCV and nlohmann-json.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <opencv2/core.hpp>
#include <optional>
#include <string>
#include <vector>

namespace fsagn {

// The strongest filter that was not asked for by id.
constexpr std::int64_t STRONGEST = -1;

// The metadata's `input`: normalised = (pixel * scale - mean) / std, pixel in 0..255.
struct InputSpec {
  std::string name, layout, color, policy;  // policy: stretch, crop or letterbox
  double number = 0;                        // share of `crop`, or level of the border of `letterbox`
  cv::Size size;
  float scale = 1;
  std::vector<float> mean, deviation;
};

struct Filter {
  std::int64_t id;
  float peak;
  cv::Mat rank;              // CV_32F (h, w) in (0, 1], smaller is kept first
  std::vector<float> curve;  // predicted retention at the metadata's areas
  double area;               // the sufficient area
};

struct Prediction {
  int index;
  std::optional<std::string> label;
  double score;
};

struct Explanation {
  std::vector<Prediction> predictions;  // the five best; none where the model is no classifier
  std::vector<Filter> filters;
};

// The picture at the size of the model's input by the resize policy: CV_8UC3, BGR.
cv::Mat fit(const cv::Mat &bgr, const InputSpec &spec);

// A mask of the model's input at the size of the picture: every pixel takes the pixel of the input that its centre falls
// into; 0 where the model did not look.
cv::Mat on_picture(const cv::Mat &mask, cv::Size picture, const InputSpec &spec);

// The round(a H W) pixels with the smallest bilinearly upsampled rank, ties by position: CV_8U, 0 and 255.
cv::Mat area_mask(const cv::Mat &rank, double area, cv::Size size);

// COCO's uncompressed run lengths: column by column, zeros first.
std::vector<int> run_lengths(const cv::Mat &mask);

// An explainer file, ready to explain pictures.
class Explainer {
 public:
  // Throws Ort::Exception or std::runtime_error where the file is no explainer. threads = 0: onnxruntime's choice.
  explicit Explainer(const std::filesystem::path &file, int threads = 0);

  // `bgr`: CV_8UC3 of any size, as cv::imread gives it. `filters`: ids, or STRONGEST.
  Explanation explain(const cv::Mat &bgr, const std::vector<std::int64_t> &filters);

  // Predicted retention of a filter at an area, linear between the metadata's areas, 0 at 0 and 1 at 1.
  double retention_at(const Filter &filter, double area) const;

  // The mask of a filter's area at the size of the picture that was explained.
  cv::Mat mask(const Filter &filter, double area, cv::Size picture) const {
    return on_picture(area_mask(filter.rank, area, spec_.size), picture, spec_);
  }

  const InputSpec &input() const { return spec_; }
  const nlohmann::json &metadata() const { return about_; }

 private:
  Ort::Value image_value(const cv::Mat &bgr);
  Explanation read(std::map<std::string, Ort::Value> results) const;

  Ort::Env env_;
  Ort::Session session_;
  nlohmann::json about_;
  InputSpec spec_;
  std::vector<double> areas_;
  std::vector<std::string> inputs_, outputs_;
  bool pixels_inside_ = false;       // the file resizes and normalises itself
  std::vector<std::uint8_t> bytes_;  // what `image_value` points into
};

}  // namespace fsagn
