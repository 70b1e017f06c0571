#include "tools/cli/output.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "engine/files/npy.h"
#include "tools/cli/progress.h"
#include "viz/pictures/render.h"

namespace switchback {

Output::Output(const Options& o) : folder_(o.output), png_(o.saves("png")), npy_(o.saves("npy")) {
  if (!png_ && !npy_) return;
  make_directories(folder_);
  if (access(folder_.c_str(), W_OK | X_OK) != 0)
    throw Error(fmt::format("cannot write into {}: {}", printable(folder_), std::strerror(errno)),
                "choose another folder with --output DIR");
}

std::string Output::path(const std::string& name) const {
  return folder_.ends_with('/') ? folder_ + name : folder_ + "/" + name;
}

Json Output::add_png(const std::string& name, const Image& image) {
  const std::string file = path(name);
  files_.add(file, png_bytes(image));
  paths_.push_back(file);
  return {{"path", file}, {"axes", nullptr}};
}

Json Output::add_npy(const std::string& name, const Tensor& tensor, const std::vector<std::string>& axes) {
  CHECK(axes.size() == tensor.dims().size(), "{}: {} axes for shape {}", name, axes.size(), to_string(tensor.dims()));
  const std::string file = path(name);
  files_.add(file, npy_bytes(tensor));
  paths_.push_back(file);
  return {{"path", file}, {"axes", axes}};
}

OutputFile& Output::add_npy(const std::string& name, const Dims& dims, int64_t& begin) {
  const std::vector<uint8_t> header = npy_header(dims);
  OutputFile& file = files_.add(path(name));
  file.write(std::as_bytes(std::span(header)));
  begin = int64_t(header.size());
  paths_.push_back(path(name));
  return file;
}

void Output::add_panel(Image picture, std::string label) {
  if (panels_wanted_++ < kMostPanels) panels_.push_back({std::move(picture), std::move(label)});
}

std::string Output::add_contact_sheet(const std::string& suffix, const std::string& title, int panel_side) {
  if (panels_wanted_ < 2) return "";
  std::string text = title;
  if (panels_wanted_ > panels_.size()) text += fmt::format(" (the first {} of {})", panels_.size(), panels_wanted_);
  GridOptions options;
  options.title = text;
  options.panel_side = panel_side;
  return add_png(fmt::format("contact_sheet.{}.png", suffix), grid(panels_, options))["path"];
}

Image thumbnail(const Image& image, int least, int most) {
  const Image large = enlarge_to_at_least(to_rgb(image), least);
  const double scale = double(most) / std::max(large.width, large.height);
  if (scale >= 1) return large;
  return resized(large, std::max(1, int(large.width * scale)), std::max(1, int(large.height * scale)));
}

Image arrange(std::vector<Panel> panels, const std::string& title) {
  constexpr int kLeastSide = 224;
  if (panels.size() == 1) return enlarge_to_at_least(panels[0].picture, kLeastSide);
  GridOptions options;
  options.title = title;
  if (panels.size() > kMostGridPanels) {
    options.title += fmt::format(" (the first {} of {})", kMostGridPanels, panels.size());
    panels.resize(kMostGridPanels);
  }
  return grid(panels, options);
}

size_t peak_memory_bytes() {
  // Not getrusage's maximum: that survives exec, so it can be that of a large process which started this one.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return size_t(std::stoull(line.substr(6))) << 10;
  return 0;
}

namespace {

void print_text(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw Error(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
}

}  // namespace

void print_json(const Json& document) {
  print_text(document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void print_line(const std::string& line) { print_text(line + "\n"); }

std::string human_count(double value) {
  const char* units[] = {"", " k", " M", " G", " T", " P"};
  int unit = 0;
  while (std::abs(value) >= 1000 && unit < 5) value /= 1000, ++unit;
  if (unit == 0) return fmt::format("{:g}", std::round(value * 100) / 100);
  return fmt::format("{:.{}f}{}", value, value < 10 ? 2 : value < 100 ? 1 : 0, units[unit]);
}

std::string human_seconds(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.0f} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.1f} ms", seconds * 1e3);
  return fmt::format("{:.2f} s", seconds);
}

}  // namespace switchback
