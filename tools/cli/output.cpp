#include "tools/cli/output.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <map>

#include "engine/files/npy.h"
#include "engine/version.h"
#include "tools/cli/job.h"
#include "viz/pictures/render.h"

namespace switchback {

Output::Output(Job& job, std::string command)
    : job_(job),
      command_(command.empty() ? job.command : std::move(command)),
      folder_(job.options.output),
      png_(job.options.saves("png")),
      svg_(job.options.saves("svg")),
      npy_(job.options.saves("npy")),
      json_(job.options.saves("json")) {
  if (!pictures() && !npy_) return;
  make_directories(folder_);
  if (access(folder_.c_str(), W_OK | X_OK) != 0)
    throw Error(fmt::format("cannot write into {}: {}", printable(folder_), std::strerror(errno)),
                "choose another folder with --output DIR");
  job.sum_weights();
}

std::string Output::path(const ResultOf& of, std::string_view ending) const {
  std::vector<Setting> settings = job_.options.settings();
  for (Setting& s : settings)
    if (s.option == "layer" && !of.layer.empty()) s.given = of.layer;
  const auto given = [&](std::string_view option) -> std::string {
    for (const Setting& s : settings)
      if (s.option == option) return name_part(s.given);
    return "";
  };
  const NameFields fields{.stem = of.stem,
                          .command = command_,
                          .options = name_suffix(settings, ending == "png" || ending == "svg"),
                          .model = name_part(job_.model_name()),
                          .layer = given("layer"),
                          .target = given("target"),
                          .index = of.index};
  return fmt::format("{}{}{}{}{}.{}", folder_, folder_.ends_with('/') ? "" : "/", name_by_template(job_.options.name, fields),
                     of.part.empty() || of.part[0] == '.' ? "" : "-", of.part, ending);
}

std::string Output::take(const ResultOf& of, std::string_view ending) {
  std::string file = path(of, ending);
  if (!taken_.insert(file).second)
    throw Error(fmt::format("two results of this run would be called {}", printable(file)),
                "a --name with {stem} or {index} tells them apart", true);
  return file;
}

std::string Output::description_path(const std::string& path) { return path.substr(0, path.rfind('.')) + ".json"; }

void Output::describe(const std::string& path, Json entry) {
  const std::string file = description_path(path);
  const auto found = std::find_if(described_.begin(), described_.end(), [&](const auto& d) { return d.first == file; });
  if (found == described_.end())
    described_.push_back({file, Json::array({std::move(entry)})});
  else
    found->second.push_back(std::move(entry));
}

void Output::add_picture(Json& files, const ResultOf& of, const Canvas& canvas, const Json& about) {
  Json run = job_.provenance();
  run.update(about);
  // Escaped to ASCII, as tEXt wants it.
  const std::string text = run.dump(-1, ' ', true, Json::error_handler_t::replace);
  const auto add = [&](std::string_view ending, auto bytes) {
    const std::string file = take(of, ending);
    files_.add(file, bytes);
    paths_.push_back(file);
    Json entry = {{"path", file}, {"axes", nullptr}};
    if (json_) describe(file, entry);
    files.push_back(std::move(entry));
  };
  if (png_)
    add("png", png_bytes(pixels(canvas, job_.options.scale),
                         {{"Software", fmt::format("switchback {}", kVersion)}, {"switchback", text}}));
  if (svg_) add("svg", svg(canvas, text));
}

Json Output::add_own_npy(const ResultOf& of, const Dims& dims, const std::vector<std::string>& axes, const Json& more,
                         std::function<void()> finish) {
  CHECK(axes.size() == dims.size(), "{}: {} axes for shape {}", of.stem, axes.size(), to_string(dims));
  const std::string file = take(of, "npy");
  Json about = {{"path", file}, {"axes", axes}, {"shape", dims}, {"dtype", "float32"}};
  about.update(more);
  describe(file, std::move(about));
  if (finish) finish_.push_back(std::move(finish));
  return {{"path", file}, {"axes", axes}};
}

Json Output::add_npy(const ResultOf& of, const Tensor& tensor, const std::vector<std::string>& axes) {
  Json entry = add_own_npy(of, tensor.dims(), axes, Json::object());
  paths_.push_back(entry["path"]);
  files_.add(paths_.back(), npy_bytes(tensor));
  return entry;
}

Json Output::add_npy(const ResultOf& of, std::span<const int32_t> values, const std::string& axis) {
  const Dims dims{int64_t(values.size())};
  Json entry = add_own_npy(of, dims, {axis}, {{"dtype", "int32"}});
  paths_.push_back(entry["path"]);
  std::vector<uint8_t> bytes = npy_header(dims, "<i4");
  const std::span<const std::byte> data = std::as_bytes(values);
  const auto* first = reinterpret_cast<const uint8_t*>(data.data());
  bytes.insert(bytes.end(), first, first + data.size());
  files_.add(paths_.back(), bytes);
  return entry;
}

Json Output::add_npy(const ResultOf& of, const Dims& dims, const std::vector<std::string>& axes, const Json& more,
                     OutputFile*& file, int64_t& begin) {
  Json entry = add_own_npy(of, dims, axes, more);
  paths_.push_back(entry["path"]);
  const std::vector<uint8_t> header = npy_header(dims);
  file = &files_.add(paths_.back());
  file->write(std::as_bytes(std::span(header)));
  begin = int64_t(header.size());
  return entry;
}

OutputFile& Output::add_npz(const ResultOf& of, std::string& path) {
  path = take(of, "npz");
  describe(path, {{"path", path}});
  paths_.push_back(path);
  return files_.add(path);
}

// Of the document's inputs each file gets those whose results lie in it.
void Output::commit(const Json& document) {
  std::map<std::string, std::set<size_t>> inputs;  // by the file that describes their results
  for (size_t i = 0; i < document["inputs"].size(); ++i)
    for (const Json& file : document["inputs"][i].value("files", Json::array()))
      inputs[description_path(file["path"])].insert(i);
  for (const auto& [file, beside] : described_) {
    Json about = job_.provenance();
    for (const auto& [key, value] : document.items())
      if (key != "inputs" && key != "contact_sheet") about[key] = value;
    about["files"] = beside;
    about["inputs"] = Json::array();
    for (size_t i : inputs[file]) {
      about["inputs"].push_back(document["inputs"][i]);
      about["inputs"].back().erase("files");
    }
    files_.add(file, about.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  files_.commit();
  for (const auto& finish : finish_) finish();
}

void Output::add_to_sheet(std::vector<Panel> panels) {
  if (items_++ >= kMostItems) return;
  for (Panel& panel : panels) panels_.push_back(std::move(panel));
}

std::string Output::add_contact_sheet(GridOptions options) {
  if (items_ < 2) return "";
  if (items_ > kMostItems) options.note = fmt::format("the first {} of {}", kMostItems, items_);
  Json files = Json::array();
  add_picture(files, {kContactSheet}, grid(panels_, std::move(options)));
  return files[0]["path"];
}

Json colors_json(std::string_view map, Range range) { return {{"map", map}, {"from", range.lo}, {"to", range.hi}}; }

Image thumbnail(const Image& image, int least, int most) {
  const Image large = enlarge_to_at_least(to_rgb(image), least);
  const double scale = double(most) / std::max(large.width, large.height);
  if (scale >= 1) return large;
  return resized(large, std::max(1, int(large.width * scale)), std::max(1, int(large.height * scale)));
}

Canvas arrange(std::vector<Panel> panels, GridOptions options) {
  constexpr int kLeastSide = 224;
  if (panels.size() == 1) {
    const auto alone = panels[0].picture.picture();
    return alone ? Canvas(enlarge_to_at_least(*alone, kLeastSide)) : panels[0].picture;
  }
  if (panels.size() > kMostGridPanels) {
    options.note = fmt::format("the first {} of {}", kMostGridPanels, panels.size());
    panels.resize(kMostGridPanels);
  }
  return grid(panels, std::move(options));
}

}  // namespace switchback
