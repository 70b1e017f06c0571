// `switchback models`: the built-in architectures, and which weights are at hand.
#include <CLI/CLI.hpp>
#include <memory>

#include "engine/version.h"
#include "engine/zoo/zoo.h"
#include "tools/commands/commands.h"
#include "tools/cli/job.h"

namespace switchback {
namespace {

void run_models(const Options& o) {
  const std::vector<std::string> folders = all_weight_folders();
  Json models = Json::array();
  std::string group;
  for (const ZooEntry& entry : zoo()) {
    if (entry.heading) group = entry.heading;
    const Network network = open_network({.name = entry.name});
    Json weights = Json::array();
    for (const InstalledWeights& found : installed_weights(entry.name, folders))
      weights.push_back(
          {{"file", found.file}, {"source", found.source}, {"accuracy", found.accuracy}, {"licence", found.licence}});
    models.push_back({{"name", entry.name},
                      {"about", entry.about},
                      {"group", group},
                      {"input", {network.input.c, network.input.h, network.input.w}},
                      {"parameters", network.parameter_count()},
                      {"weights", weights}});
  }
  if (o.json)
    return print_json({{"command", "models"}, {"version", kVersion}, {"models", models}, {"folders", folders}});
  if (o.quiet) return;
  print_line(fmt::format("{:<25} {:>11}  {:<13} {}", "model", "parameters", "input", "weights at hand"));
  group.clear();
  for (const Json& m : models) {
    if (m["group"] != group) print_line("\n" + (group = m["group"].get<std::string>()));
    std::string weights = "-";
    if (!m["weights"].empty()) weights = m["weights"][0]["file"].get<std::string>();
    if (!m["weights"].empty() && m["weights"][0]["accuracy"] != "")
      weights += fmt::format(" ({})", m["weights"][0]["accuracy"].get<std::string>());
    const Json& in = m["input"];
    print_line(fmt::format("{:<25} {:>11}  {:<13} {}", m["name"].get<std::string>(),
                           human_count(m["parameters"].get<double>()),
                           fmt::format("{}x{}x{}", in[0].get<int>(), in[1].get<int>(), in[2].get<int>()), weights));
  }
  print_line("\nWeights are looked for as NAME.safetensors in these folders ($SWITCHBACK_WEIGHTS puts one before them):");
  for (const std::string& folder : folders) print_line("  " + folder);
  print_line("Others: --weights FILE.safetensors (torchvision's names and shapes), or --weights random:SEED.");
}

}  // namespace

std::function<void()> setup_models(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_report(app, *o);
  return [o] { run_models(*o); };
}

}  // namespace switchback
