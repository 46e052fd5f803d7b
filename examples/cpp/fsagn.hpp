// Explainer files in C++: metadata, preprocessing, masks. onnxruntime, OpenCV and nlohmann-json.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <opencv2/core.hpp>
#include <optional>
#include <string>
#include <vector>

namespace fsagn {

// What can be asked for besides ids: the strongest filter or the class with the highest score, the filter that adds most
// to the first class asked about, the one that speaks most against it.
constexpr std::int64_t STRONGEST = -1, DECISIVE = -2, AGAINST = -3;

// The metadata's `input`: normalised = (pixel * scale - mean) / std, pixel in 0..255.
struct InputSpec {
  std::string name, layout, color, policy;  // policy: stretch, crop or letterbox
  double number = 0;                        // share of `crop`, or level of the border of `letterbox`
  cv::Size size;
  float scale = 1;
  std::vector<float> mean, deviation;
};

// An area that can be cut at any size.
struct Area {
  cv::Mat rank;              // CV_32F (h, w) in (0, 1], smaller is kept first
  std::vector<float> curve;  // predicted retention at the metadata's areas
  double area;               // the sufficient area; 0: no small area suffices
  bool live;                 // not of a filter that is not active, or a decision to which no filter adds anything
};

struct Filter : Area {
  std::int64_t id;
  float peak;
  float contribution, share;  // what it adds to the first class, of the support or of what speaks against; 0 without
};

// What the decision for one class rests on.
struct Evidence : Area {
  std::int64_t index;
  std::optional<std::string> label;
  float decision;                // log-odds of the class
  std::array<float, 2> support;  // sums of what all filters add for it, and against it
};

struct Prediction {
  int index;
  std::optional<std::string> label;
  double score;
};

struct Explanation {
  std::vector<Prediction> predictions;  // the five best; none where the model is no classifier
  std::vector<Evidence> evidence;       // per class asked about; none where the file knows no classes
  std::vector<Filter> filters;
};

// The picture at the size of the model's input by the resize policy: CV_8UC3, BGR.
cv::Mat fit(const cv::Mat &bgr, const InputSpec &spec);

// A mask of the model's input at the size of the picture: every pixel takes the pixel of the input that its centre falls
// into; 0 where the model did not look.
cv::Mat on_picture(const cv::Mat &mask, cv::Size picture, const InputSpec &spec);

// The round(a H W) pixels with the smallest bilinearly upsampled rank, ties by position: CV_8U, 0 and 255.
cv::Mat area_mask(const cv::Mat &rank, double area, cv::Size size);

// A whole number; throws where the text is something else.
std::int64_t whole_number(const std::string &text);

// COCO's uncompressed run lengths: column by column, zeros first.
std::vector<int> run_lengths(const cv::Mat &mask);

// An explainer file, ready to explain pictures.
class Explainer {
 public:
  // Throws Ort::Exception or std::runtime_error where the file is no explainer. threads = 0: onnxruntime's choice.
  explicit Explainer(const std::filesystem::path &file, int threads = 0);

  // `bgr`: CV_8UC3 of any size, as cv::imread gives it. `filters`: ids, STRONGEST, DECISIVE or AGAINST; `classes`: ids, or
  // STRONGEST for the answer.
  Explanation explain(const cv::Mat &bgr, const std::vector<std::int64_t> &filters,
                      const std::vector<std::int64_t> &classes = {STRONGEST});

  // Predicted retention of a filter, or of a decision, at an area, linear between the metadata's areas, 0 at 0 and 1 at 1.
  double retention_at(const Area &found, double area) const;

  // The mask of the area of a filter, or of a decision, at the size of the picture that was explained; empty where it is
  // not live.
  cv::Mat mask(const Area &found, double area, cv::Size picture) const {
    return on_picture(area_mask(found.rank, found.live ? area : 0, spec_.size), picture, spec_);
  }

  // Whether the file can be asked what a decision rests on.
  bool knows_classes() const;

  // The number of a class from its name, or from its number as text.
  std::int64_t class_number(const std::string &text) const;

  const InputSpec &input() const { return spec_; }
  const nlohmann::json &metadata() const { return about_; }

 private:
  Ort::Value image_value(const cv::Mat &bgr);
  Explanation read(std::map<std::string, Ort::Value> results, const std::vector<std::int64_t> &filters) const;
  Area area_of(Ort::Value &ranks, const Ort::Value &curves, std::int64_t place, const std::vector<double> &random,
               double share, bool live) const;

  Ort::Env env_;
  Ort::Session session_;
  nlohmann::json about_;
  InputSpec spec_;
  std::vector<double> areas_;
  std::vector<double> random_;  // what random areas of these sizes keep
  std::vector<std::string> inputs_, outputs_;
  bool pixels_inside_ = false;       // the file resizes and normalises itself
  std::vector<std::uint8_t> bytes_;  // what `image_value` points into
};

}  // namespace fsagn
