// Explains a picture with an explainer file:
//
//   explain EXPLAINER.onnx PICTURE [--filters=3,17 | --top=5] [--area=0.1] [--overlay=OUT.png] [--threads=N]
//
// Prints one JSON document: the predictions and, per filter, id, peak, area, predicted retention there, and the mask of
// the area at the picture's size as COCO's uncompressed run lengths. Everything it needs to know is in the file's
// metadata. Reads what OpenCV reads.
#include <iostream>
#include <opencv2/core/utility.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <sstream>
#include <stdexcept>

#include "fsagn.hpp"

namespace {

const char *const KEYS =
    "{help h||}{@explainer||the explainer file}{@picture||the picture}"
    "{filters||ids, for example 3,17}{top|5|how many of the strongest filters}"
    "{area||share of the picture to keep; the sufficient area unless told}"
    "{overlay||write a picture of the filters' areas}{threads|0|threads of onnxruntime}";

std::vector<std::int64_t> read_ids(const std::string &text) {
  std::vector<std::int64_t> ids;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) ids.push_back(std::stoll(part));
  return ids;
}

// The picture, and one copy of it per mask, dark outside of the mask, its border outlined.
cv::Mat draw(const cv::Mat &picture, const std::vector<cv::Mat> &masks) {
  std::vector<cv::Mat> tiles{picture};
  for (const auto &mask : masks) {
    cv::Mat tile = picture * 0.3;
    picture.copyTo(tile, mask);
    std::vector<std::vector<cv::Point>> borders;
    cv::findContours(mask, borders, cv::RETR_LIST, cv::CHAIN_APPROX_NONE);
    cv::drawContours(tile, borders, -1, {60, 190, 255}, 1, cv::LINE_AA);
    tiles.push_back(tile);
  }
  cv::Mat drawn;
  cv::hconcat(tiles, drawn);
  return drawn;
}

void run(const cv::CommandLineParser &options) {
  fsagn::Explainer explainer(options.get<std::string>("@explainer"), options.get<int>("threads"));
  const auto path = options.get<std::string>("@picture");
  const cv::Mat picture = cv::imread(path, cv::IMREAD_COLOR);
  if (picture.empty()) throw std::runtime_error(path + ": no picture that OpenCV can read");
  const auto filters = options.has("filters")
                           ? read_ids(options.get<std::string>("filters"))
                           : std::vector<std::int64_t>(options.get<int>("top"), fsagn::STRONGEST);
  const auto answer = explainer.explain(picture, filters);
  const cv::Size size = picture.size();
  std::vector<cv::Mat> masks;
  auto predictions = nlohmann::json::array(), found = nlohmann::json::array();
  for (const auto &[index, label, score] : answer.predictions) {
    predictions.push_back({{"index", index}, {"label", nullptr}, {"score", score}});
    if (label) predictions.back()["label"] = *label;
  }
  for (const auto &filter : answer.filters) {
    const double area = options.has("area") ? options.get<double>("area") : filter.area;
    masks.push_back(explainer.mask(filter, area, size));
    const nlohmann::json mask{{"size", {size.height, size.width}}, {"counts", fsagn::run_lengths(masks.back())}};
    found.push_back({{"id", filter.id},
                     {"peak", filter.peak},
                     {"area", area},
                     {"retention", explainer.retention_at(filter, area)},
                     {"mask", mask}});
  }
  if (options.has("overlay")) {
    const auto overlay = options.get<std::string>("overlay");
    if (!cv::imwrite(overlay, draw(picture, masks)))
      throw std::runtime_error(overlay + ": cannot be written");
  }
  const nlohmann::json document{
      {"layer", explainer.metadata().at("layer")}, {"predictions", predictions}, {"filters", found}};
  std::cout << document.dump() << '\n';
}

}  // namespace

int main(int count, const char *const *words) {
  const cv::CommandLineParser options(count, words, KEYS);
  if (options.has("help") || !options.has("@explainer") || !options.has("@picture")) {
    std::cerr << "usage: explain EXPLAINER.onnx PICTURE [--filters=3,17 | --top=5] [--area=0.1] [--overlay=OUT.png] "
                 "[--threads=N]\n";
    return options.has("help") ? 0 : 2;
  }
  cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);  // errors are told below
  try {
    run(options);
  } catch (const std::exception &error) {
    const std::string text = error.what();
    std::cerr << "error: " << text.substr(0, text.find('\n')) << '\n';
    return 1;
  }
  return 0;
}
