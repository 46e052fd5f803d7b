// Explains a picture with an explainer file:
//
//   explain EXPLAINER.onnx PICTURE [--classes=short] [--filters=decisive:3,against:1] [--area=0.1] [--overlay=OUT.png]
//           [--threads=N]
//
// Prints one JSON document: the predictions; of an explainer that knows classes, what the decision for each class asked
// about rests on (evidence: log-odds, support, area, predicted retention, mask); and per filter, id, peak, area, predicted
// retention there, what it adds to the first class and its share of the support. Masks are those of the area at the
// picture's size, as COCO's uncompressed run lengths. Everything it needs to know is in the file's metadata. Reads what
// OpenCV reads.
#include <iostream>
#include <map>
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
    "{classes|-1|names or numbers of the classes asked about; -1: the answer}"
    "{filters||decisive:3,against:1, top:5 or ids like 3,17; decisive:5 unless told, or top:5}"
    "{area||share of the picture to keep; the sufficient area unless told}"
    "{overlay||write a picture of the evidence and the filters' areas}{threads|0|threads of onnxruntime}";

std::vector<std::string> words_of(const std::string &text) {
  std::vector<std::string> words;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) words.push_back(part);
  return words;
}

// `decisive:3,against:1`, `top:5` or ids like `3,17`.
std::vector<std::int64_t> asked_filters(const std::string &text) {
  const std::map<std::string, std::int64_t> kinds{
      {"top", fsagn::STRONGEST}, {"decisive", fsagn::DECISIVE}, {"against", fsagn::AGAINST}};
  std::vector<std::int64_t> slots;
  for (const auto &word : words_of(text)) {
    const auto colon = word.find(':');
    if (const auto kind = kinds.find(word.substr(0, colon)); colon != std::string::npos && kind != kinds.end())
      slots.insert(slots.end(), fsagn::whole_number(word.substr(colon + 1)), kind->second);
    else slots.push_back(fsagn::whole_number(word));
  }
  return slots;
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
  const auto filters = asked_filters(options.has("filters")      ? options.get<std::string>("filters")
                                     : explainer.knows_classes() ? "decisive:5"
                                                                 : "top:5");
  std::vector<std::int64_t> classes;
  for (const auto &word : words_of(options.get<std::string>("classes"))) classes.push_back(explainer.class_number(word));
  const auto answer = explainer.explain(picture, filters, classes);
  const cv::Size size = picture.size();
  std::vector<cv::Mat> masks;
  const auto named = [](const std::optional<std::string> &label) { return label ? nlohmann::json(*label) : nullptr; };
  const auto cut = [&](const fsagn::Area &found) -> nlohmann::json {
    const double area = options.has("area") && found.live ? options.get<double>("area") : found.area;
    masks.push_back(explainer.mask(found, area, size));
    const nlohmann::json mask{{"size", {size.height, size.width}}, {"counts", fsagn::run_lengths(masks.back())}};
    const auto kept = area > 0 ? nlohmann::json(explainer.retention_at(found, area)) : nullptr;
    return {{"area", area}, {"retention", kept}, {"mask", mask}};
  };
  auto predictions = nlohmann::json::array(), evidence = predictions, found = predictions;
  for (const auto &[index, label, score] : answer.predictions)
    predictions.push_back({{"index", index}, {"label", named(label)}, {"score", score}});
  for (const auto &decision : answer.evidence) {
    evidence.push_back({{"class", decision.index},
                        {"label", named(decision.label)},
                        {"decision", decision.decision},
                        {"support", decision.support}});
    evidence.back().update(cut(decision));
  }
  for (const auto &filter : answer.filters) {
    found.push_back({{"id", filter.id}, {"peak", filter.peak}});
    if (!answer.evidence.empty()) {
      found.back()["contribution"] = filter.contribution;
      found.back()["share"] = filter.share;
    }
    found.back().update(cut(filter));
  }
  if (options.has("overlay")) {
    const auto overlay = options.get<std::string>("overlay");
    if (!cv::imwrite(overlay, draw(picture, masks)))
      throw std::runtime_error(overlay + ": cannot be written");
  }
  nlohmann::json document{
      {"layer", explainer.metadata().at("layer")}, {"predictions", predictions}, {"filters", found}};
  if (!evidence.empty()) document["evidence"] = evidence;
  std::cout << document.dump() << '\n';
}

}  // namespace

int main(int count, const char *const *words) {
  const cv::CommandLineParser options(count, words, KEYS);
  if (options.has("help") || !options.has("@explainer") || !options.has("@picture")) {
    std::cerr << "usage: explain EXPLAINER.onnx PICTURE [--classes=NAME,...] [--filters=decisive:3,against:1] "
                 "[--area=0.1] [--overlay=OUT.png] [--threads=N]\n";
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
