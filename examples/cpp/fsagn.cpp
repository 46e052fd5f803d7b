#include "fsagn.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <opencv2/imgproc.hpp>
#include <stdexcept>

namespace fsagn {
namespace {

using nlohmann::json;

const Ort::MemoryInfo &host() {
  static const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  return memory;
}

Ort::Session open_session(Ort::Env &env, const std::filesystem::path &file, int threads) {
  Ort::SessionOptions options;
  if (threads > 0) options.SetIntraOpNumThreads(threads);
  return Ort::Session(env, file.c_str(), options);
}

json read_metadata(const Ort::Session &session) {
  Ort::AllocatorWithDefaultOptions allocator;
  const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated("fsagn", allocator);
  if (!text) throw std::runtime_error("not an explainer: no metadata 'fsagn'");
  return json::parse(text.get());
}

InputSpec read_spec(const json &input) {
  InputSpec spec;
  spec.name = input.at("name").get<std::string>();
  spec.layout = input.at("layout").get<std::string>();
  spec.color = input.at("color").get<std::string>();
  spec.size = {input.at("size").at(1).get<int>(), input.at("size").at(0).get<int>()};
  spec.scale = input.at("scale").get<float>();
  spec.mean = input.at("mean").get<std::vector<float>>();
  spec.deviation = input.at("std").get<std::vector<float>>();
  const auto resize = input.at("resize").get<std::string>();
  const auto colon = resize.find(':');
  spec.policy = resize.substr(0, colon);
  if (colon != std::string::npos) spec.number = std::stod(resize.substr(colon + 1));
  return spec;
}

// Area average along an axis that shrinks, bilinear where it grows.
cv::Mat resize(const cv::Mat &pixels, cv::Size size) {
  const cv::Size shrunk(std::min(size.width, pixels.cols), std::min(size.height, pixels.rows));
  cv::Mat resized = pixels;
  if (shrunk != resized.size()) {
    cv::Mat smaller;
    cv::resize(resized, smaller, shrunk, 0, 0, cv::INTER_AREA);
    resized = smaller;
  }
  if (size != resized.size()) {
    cv::Mat larger;
    cv::resize(resized, larger, size, 0, 0, cv::INTER_LINEAR);
    resized = larger;
  }
  return resized;
}

int rounded(double value, int most) { return std::min(most, std::max(1, cvRound(value))); }

// BGR pixels in the model's order of channels, CV_32F.
cv::Mat ordered(const cv::Mat &bgr, const InputSpec &spec) {
  cv::Mat pixels;
  if (spec.color == "GRAY") cv::cvtColor(bgr, pixels, cv::COLOR_BGR2GRAY);
  else if (spec.color == "RGB") cv::cvtColor(bgr, pixels, cv::COLOR_BGR2RGB);
  else if (spec.color == "RGBA") cv::cvtColor(bgr, pixels, cv::COLOR_BGR2RGBA);
  else if (spec.color == "BGRA") cv::cvtColor(bgr, pixels, cv::COLOR_BGR2BGRA);
  else pixels = bgr;
  cv::Mat values;
  pixels.convertTo(values, CV_32F);
  return values;
}

// Normalised pixels in the model's layout, one image.
std::vector<float> normalised(const cv::Mat &fitted, const InputSpec &spec) {
  const cv::Mat pixels = ordered(fitted, spec);
  const std::size_t channels = pixels.channels(), places = pixels.total();
  const bool planes = spec.layout == "NCHW";
  std::vector<float> values(places * channels);
  const float *pixel = pixels.ptr<float>();
  for (std::size_t place = 0; place < places; ++place)
    for (std::size_t c = 0; c < channels; ++c, ++pixel)
      values[planes ? c * places + place : place * channels + c] =
          (*pixel * spec.scale - spec.mean.at(c)) / spec.deviation.at(c);
  return values;
}

template <typename T>
std::vector<std::uint8_t> as_bytes(const std::vector<float> &values, T (*convert)(float)) {
  std::vector<std::uint8_t> bytes(values.size() * sizeof(T));
  for (std::size_t n = 0; n < values.size(); ++n) {
    const T value = convert(values[n]);
    std::memcpy(bytes.data() + n * sizeof(T), &value, sizeof(T));
  }
  return bytes;
}

std::vector<std::uint8_t> as_type(const std::vector<float> &values, ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return as_bytes<float>(values, [](float value) { return value; });
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      return as_bytes<double>(values, [](float value) { return static_cast<double>(value); });
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return as_bytes<Ort::Float16_t>(values, [](float value) { return Ort::Float16_t(value); });
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
      return as_bytes<std::uint8_t>(values, [](float value) { return cv::saturate_cast<std::uint8_t>(value); });
    default:
      throw std::runtime_error("the model's input must be float16, float, double or uint8");
  }
}

// y at x, linear between the points; x in the range of xs, which ascend between the two that enclose it.
double along(double x, const std::vector<double> &xs, const std::vector<double> &ys) {
  const auto found = std::find_if(xs.begin() + 1, xs.end(), [x](double value) { return value >= x; });
  const std::size_t at = std::min<std::size_t>(found - xs.begin(), xs.size() - 1);
  return ys[at - 1] + (ys[at] - ys[at - 1]) * (x - xs[at - 1]) / (xs[at] - xs[at - 1]);
}

// What random areas keep; where the file does not say, they are taken to keep their own share.
std::vector<double> random_retention(const nlohmann::json &about, const std::vector<double> &areas) {
  const auto trust = about.find("trust");
  return trust == about.end() || trust->is_null() ? areas : trust->at("random").get<std::vector<double>>();
}

constexpr double OF_FILTERS = 0.8, OF_DECISIONS = 0.5;  // of the largest lead

// The smallest area up to half of the picture with a share of the largest lead over a random area; 0: none leads by .05.
double sufficient_area(const std::vector<double> &areas, const std::vector<float> &curve,
                       const std::vector<double> &random, double share) {
  std::vector<double> small, leads;
  for (std::size_t i = 0; i < areas.size() && areas[i] <= 0.5; ++i) {
    small.push_back(areas[i]);
    leads.push_back(curve[i] - random[i]);
  }
  const double most = leads.empty() ? 0 : *std::max_element(leads.begin(), leads.end());
  if (most < 0.05) return 0;
  return leads.front() >= share * most ? small.front() : along(share * most, leads, small);
}

// What the numbers of one image say about each class; one number is a decision between two.
std::vector<double> probabilities(std::vector<double> numbers, const std::string &scores) {
  const auto share = [](double value) { return std::clamp(value, 0.0, 1.0); };
  if (scores == "logits") {
    const double most = *std::max_element(numbers.begin(), numbers.end());
    double sum = 0;
    for (double &value : numbers) sum += value = std::exp(value - most);
    for (double &value : numbers) value /= sum;
  } else if (scores == "logit" || scores == "sigmoid") {
    const double one = scores == "logit" ? 1 / (1 + std::exp(-numbers.front())) : share(numbers.front());
    return {1 - one, one};
  } else {
    for (double &value : numbers) value = share(scores == "log-probabilities" ? std::exp(std::min(value, 0.0)) : value);
  }
  return numbers;
}

std::vector<double> as_numbers(const Ort::Value &result) {
  const auto info = result.GetTensorTypeAndShapeInfo();
  const auto copied = [&](const auto *values) {
    std::vector<double> numbers(info.GetElementCount());
    std::transform(values, values + numbers.size(), numbers.begin(), [](auto value) { return static_cast<double>(value); });
    return numbers;
  };
  switch (info.GetElementType()) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return copied(result.GetTensorData<float>());
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return copied(result.GetTensorData<double>());
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: {
      const auto *values = result.GetTensorData<Ort::Float16_t>();
      std::vector<float> wide(info.GetElementCount());
      std::transform(values, values + wide.size(), wide.begin(), [](const Ort::Float16_t &value) { return value.ToFloat(); });
      return copied(wide.data());
    }
    default: throw std::runtime_error("the output that classifies must be float16, float or double");
  }
}

// Names of the classes in the order of their numbers; none where the model's are not known.
std::vector<std::string> class_names(const json &about) {
  const json said = about.value("classes", json());
  if (!said.is_object() || !said.at("named").get<bool>()) return {};
  auto labels = about.at("labels").get<std::vector<std::string>>();
  if (labels.size() == 1) labels.insert(labels.begin(), "not " + labels.front());  // class 1 alone has a name
  return labels;
}

std::optional<std::string> label_of(std::int64_t index, const std::vector<std::string> &labels) {
  if (index < 0 || static_cast<std::size_t>(index) >= labels.size()) return std::nullopt;
  return labels[index];
}

// The five best classes, as the metadata's `classes` says; none where the model has no classes, or an old file is silent.
std::vector<Prediction> best_answers(const std::map<std::string, Ort::Value> &results, const json &about) {
  const json said = about.value("classes", json());
  if (!said.is_object() || !said.at("output").is_string()) return {};
  const auto output = results.find(said.at("output").get<std::string>());
  if (output == results.end()) return {};
  const auto numbers = as_numbers(output->second);
  if (numbers.empty()) return {};
  const auto scores = probabilities(numbers, said.at("scores").get<std::string>());
  const auto labels = class_names(about);
  std::vector<int> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
  order.resize(std::min<std::size_t>(5, order.size()));
  std::vector<Prediction> best;
  for (const int index : order) best.push_back({index, label_of(index, labels), scores[index]});
  return best;
}

}  // namespace

namespace {

// What the model sees of a picture, and where that stands in the model's input.
std::pair<cv::Rect, cv::Rect> windows(cv::Size picture, const InputSpec &spec) {
  const auto centred = [](cv::Size outer, int width, int height) {
    return cv::Rect((outer.width - width) / 2, (outer.height - height) / 2, width, height);
  };
  const cv::Rect source({0, 0}, picture), target({0, 0}, spec.size);
  const double high = static_cast<double>(picture.height) / spec.size.height;
  const double wide = static_cast<double>(picture.width) / spec.size.width;
  if (spec.policy == "crop") {
    const double unit = spec.number * std::min(high, wide);
    const int width = rounded(unit * spec.size.width, picture.width);
    return {centred(picture, width, rounded(unit * spec.size.height, picture.height)), target};
  }
  if (spec.policy == "letterbox") {
    const double factor = std::min(1 / high, 1 / wide);
    const int width = rounded(picture.width * factor, spec.size.width);
    return {source, centred(spec.size, width, rounded(picture.height * factor, spec.size.height))};
  }
  return {source, target};
}

// Per pixel of an axis of the picture, the pixel of the model's input that its centre falls into.
std::vector<int> sources(int length, int from, int extent, int to, int pixels) {
  const double scale = static_cast<double>(extent) / pixels, shift = from - to * scale;
  std::vector<int> found(length);
  for (int i = 0; i < length; ++i) found[i] = cvFloor((i + 0.5 - shift) / scale);
  return found;
}

}  // namespace

cv::Mat fit(const cv::Mat &bgr, const InputSpec &spec) {
  const auto [source, target] = windows(bgr.size(), spec);
  if (target.size() == spec.size) return resize(bgr(source), spec.size);
  cv::Mat padded(spec.size, CV_8UC3, cv::Scalar::all(cvRound(spec.number)));
  resize(bgr(source), target.size()).copyTo(padded(target));
  return padded;
}

cv::Mat on_picture(const cv::Mat &mask, cv::Size picture, const InputSpec &spec) {
  const auto [source, target] = windows(picture, spec);
  const auto down = sources(picture.height, source.y, source.height, target.y, target.height);
  const auto across = sources(picture.width, source.x, source.width, target.x, target.width);
  cv::Mat shown(picture, CV_8U, cv::Scalar(0));
  for (int y = 0; y < picture.height; ++y) {
    if (down[y] < 0 || down[y] >= mask.rows) continue;
    for (int x = 0; x < picture.width; ++x)
      if (across[x] >= 0 && across[x] < mask.cols)
        shown.at<std::uint8_t>(y, x) = mask.at<std::uint8_t>(down[y], across[x]);
  }
  return shown;
}

cv::Mat area_mask(const cv::Mat &rank, double area, cv::Size size) {
  cv::Mat pixels, mask(size, CV_8U, cv::Scalar(0));
  cv::resize(rank, pixels, size, 0, 0, cv::INTER_LINEAR);
  const float *values = pixels.ptr<float>();
  const int count = cvRound(area * size.area());
  if (count == 0) return mask;
  std::vector<float> sorted(values, values + size.area());
  std::nth_element(sorted.begin(), sorted.begin() + count - 1, sorted.end());
  const float threshold = sorted[count - 1];
  auto left = count - std::count_if(values, values + size.area(), [&](float value) { return value < threshold; });
  for (int place = 0; place < size.area(); ++place)
    if (values[place] < threshold || (values[place] == threshold && left-- > 0)) mask.data[place] = 255;
  return mask;
}

std::int64_t whole_number(const std::string &text) {
  std::size_t used = 0;
  try {
    const auto number = std::stoll(text, &used);
    if (used == text.size()) return number;
  } catch (const std::logic_error &) {
  }
  throw std::runtime_error("'" + text + "' is no whole number");
}

std::vector<int> run_lengths(const cv::Mat &mask) {
  std::vector<int> counts;
  bool current = false;
  int length = 0;
  for (int x = 0; x < mask.cols; ++x)
    for (int y = 0; y < mask.rows; ++y, ++length) {
      if ((mask.at<std::uint8_t>(y, x) != 0) == current) continue;
      counts.push_back(length);
      current = !current;
      length = 0;
    }
  counts.push_back(length);
  return counts;
}

Explainer::Explainer(const std::filesystem::path &file, int threads)
    : env_(ORT_LOGGING_LEVEL_ERROR, "fsagn"),
      session_(open_session(env_, file, threads)),
      about_(read_metadata(session_)),
      spec_(read_spec(about_.at("input"))),
      areas_(about_.at("areas").get<std::vector<double>>()),
      random_(random_retention(about_, areas_)) {
  if (const auto variant = about_.find("variant"); variant != about_.end())
    pixels_inside_ = variant->value("preprocessing", false);
  Ort::AllocatorWithDefaultOptions allocator;
  for (std::size_t n = 0; n < session_.GetInputCount(); ++n)
    inputs_.push_back(session_.GetInputNameAllocated(n, allocator).get());
  for (std::size_t n = 0; n < session_.GetOutputCount(); ++n)
    outputs_.push_back(session_.GetOutputNameAllocated(n, allocator).get());
}

Ort::Value Explainer::image_value(const cv::Mat &bgr) {
  auto type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  std::vector<std::int64_t> shape{1, bgr.rows, bgr.cols, 3};
  if (pixels_inside_) {
    cv::Mat rgb;
    cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
    bytes_.assign(rgb.datastart, rgb.dataend);
  } else {
    const auto channels = static_cast<std::int64_t>(spec_.mean.size());
    if (spec_.layout == "NCHW") shape = {1, channels, spec_.size.height, spec_.size.width};
    else shape = {1, spec_.size.height, spec_.size.width, channels};
    const auto at = std::find(inputs_.begin(), inputs_.end(), spec_.name) - inputs_.begin();
    type = session_.GetInputTypeInfo(at).GetTensorTypeAndShapeInfo().GetElementType();
    bytes_ = as_type(normalised(fit(bgr, spec_), spec_), type);
  }
  return Ort::Value::CreateTensor(host(), bytes_.data(), bytes_.size(), shape.data(), shape.size(), type);
}

bool Explainer::knows_classes() const { return std::find(inputs_.begin(), inputs_.end(), "classes") != inputs_.end(); }

std::int64_t Explainer::class_number(const std::string &text) const {
  const auto labels = class_names(about_);
  const auto found = std::find(labels.begin(), labels.end(), text);
  if (found != labels.end()) return found - labels.begin();
  const auto number = whole_number(text);
  const json said = about_.value("classes", json()), count = said.is_object() ? said.value("count", json()) : json();
  if (number < STRONGEST || (count.is_number() && number >= count.get<std::int64_t>()))
    throw std::runtime_error("no class " + text + ": there are " + count.dump());
  return number;
}

Explanation Explainer::explain(const cv::Mat &bgr, const std::vector<std::int64_t> &filters,
                               const std::vector<std::int64_t> &classes) {
  if (bgr.type() != CV_8UC3 || bgr.empty()) throw std::runtime_error("a picture must be 8-bit BGR and not empty");
  std::map<std::string, std::vector<std::int64_t>> asked{{"filters", filters}, {"classes", classes}};
  std::vector<Ort::Value> feeds;
  std::vector<const char *> feed_names, names;
  for (const auto &name : inputs_) {
    feed_names.push_back(name.c_str());
    if (const auto found = asked.find(name); found != asked.end()) {
      auto &ids = found->second;
      const std::array<std::int64_t, 2> shape{1, static_cast<std::int64_t>(ids.size())};
      feeds.push_back(Ort::Value::CreateTensor<std::int64_t>(host(), ids.data(), ids.size(), shape.data(), shape.size()));
    } else {
      feeds.push_back(image_value(bgr));
    }
  }
  for (const auto &name : outputs_) names.push_back(name.c_str());
  auto values = session_.Run({}, feed_names.data(), feeds.data(), feeds.size(), names.data(), names.size());
  std::map<std::string, Ort::Value> results;
  for (std::size_t n = 0; n < values.size(); ++n) results.emplace(outputs_[n], std::move(values[n]));
  return read(std::move(results), filters);
}

Area Explainer::area_of(Ort::Value &ranks, const Ort::Value &curves, std::int64_t place,
                        const std::vector<double> &random, double share, bool live) const {
  const auto grid = ranks.GetTensorTypeAndShapeInfo().GetShape();  // (1, K, h, w)
  const auto cells = grid[2] * grid[3], areas = static_cast<std::int64_t>(areas_.size());
  const cv::Mat rank(static_cast<int>(grid[2]), static_cast<int>(grid[3]), CV_32F,
                     ranks.GetTensorMutableData<float>() + place * cells);
  const auto *start = curves.GetTensorData<float>() + place * areas;
  const std::vector<float> curve(start, start + areas);
  return {rank.clone(), curve, live ? sufficient_area(areas_, curve, random, share) : 0, live};
}

Explanation Explainer::read(std::map<std::string, Ort::Value> results, const std::vector<std::int64_t> &filters) const {
  Explanation found;
  found.predictions = best_answers(results, about_);
  const float *added = nullptr;  // what each filter adds to the first class
  if (const auto asked = results.find("class_ids"); asked != results.end()) {
    const auto labels = class_names(about_);
    const auto *ids = asked->second.GetTensorData<std::int64_t>();
    const auto *decisions = results.at("decision").GetTensorData<float>();
    const auto *support = results.at("support").GetTensorData<float>();
    added = results.at("contributions").GetTensorData<float>();
    const auto count = static_cast<std::int64_t>(asked->second.GetTensorTypeAndShapeInfo().GetElementCount());
    for (std::int64_t j = 0; j < count; ++j)
      found.evidence.push_back({area_of(results.at("evidence_rank"), results.at("evidence_retention"), j, areas_, OF_DECISIONS,
                                        support[2 * j] != 0 || support[2 * j + 1] != 0),
                                ids[j], label_of(ids[j], labels), decisions[j], {support[2 * j], support[2 * j + 1]}});
  }
  const auto count = results.at("area_rank").GetTensorTypeAndShapeInfo().GetShape()[1];
  const auto *ids = results.at("filter_ids").GetTensorData<std::int64_t>();
  const auto *peaks = results.at("filter_peaks").GetTensorData<float>();
  for (std::int64_t k = 0; k < count; ++k) {
    if (ids[k] < 0) continue;
    const float contribution = added ? added[k] : 0;
    const auto wish = static_cast<std::size_t>(k) < filters.size() ? filters[k] : ids[k];
    if (wish < 0 && peaks[k] <= 0) continue;  // it must be active
    // one that was asked for as decisive must speak for the class, one against it against it
    if ((wish == DECISIVE && contribution <= 0) || (wish == AGAINST && contribution >= 0)) continue;
    float share = 0;
    if (added)
      if (const float total = found.evidence.front().support[contribution < 0]; total != 0)
        share = std::min(1.0F, contribution / total);
    found.filters.push_back(
        {area_of(results.at("area_rank"), results.at("retention"), k, random_, OF_FILTERS, peaks[k] > 0), ids[k], peaks[k],
         contribution, share});
  }
  return found;
}

double Explainer::retention_at(const Area &found, double area) const {
  std::vector<double> xs{0}, ys{0};
  xs.insert(xs.end(), areas_.begin(), areas_.end());
  ys.insert(ys.end(), found.curve.begin(), found.curve.end());
  if (xs.back() < 1) {
    xs.push_back(1);
    ys.push_back(1);
  }
  return along(area, xs, ys);
}

}  // namespace fsagn
