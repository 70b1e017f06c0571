// `switchback COMMAND [OPTIONS] INPUT...`: picks the row of the command, parses, runs, and turns errors into one line
// on stderr and an exit code: 0 done, 1 failed, 2 wrong usage. Interrupted, it ends by the signal (engine/files/files.h).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>
#include <string>
#include <vector>

#include "engine/files/files.h"
#include "engine/network.h"
#include "engine/text.h"
#include "engine/version.h"
#include "kernels/check.h"
#include "tools/commands/commands.h"
#include "tools/cli/processors.h"
#include "tools/cli/progress.h"
#include "tools/cli/report.h"
#include "tools/cli/shares.h"

namespace switchback {
namespace {

std::vector<std::string> command_names() {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.push_back(command.name);
  return names;
}

std::string overview() {
  std::string text =
      "switchback: which pixels, regions or patterns a unit of a convolutional network answers to\n\n"
      "Usage: switchback COMMAND [OPTIONS] INPUT...\n\nCommands:\n";
  for (const Command& command : kCommands) text += fmt::format("  {:<12} {}\n", command.name, command.about);
  return text +
         "\n`switchback help COMMAND` tells a command's options, `switchback --version` the version.\n"
         "INPUT is an image, a folder of images, - (an image on standard input), a .npy array [N,C,H,W] (used as it is) or\n"
         "a data set (an idx file, a file or mosaic of CIFAR, an .npz, a folder with one sub-folder a class) or a part of one: DATASET[INDEX],\n"
         "DATASET[FIRST:LAST].\n";
}

std::string version() { return fmt::format("switchback {} ({})", kVersion, kGitCommit); }

// Options that do not exist, with the nearest that do.
[[noreturn]] void unknown_option(const CLI::App& app, const std::string& command) {
  const std::vector<std::string> extras = app.remaining();
  std::string word = extras.empty() ? "" : extras[0];
  for (const std::string& extra : extras)
    if (extra.size() > 1 && extra[0] == '-') {
      word = extra;
      break;
    }
  word = word.substr(0, word.find('='));
  if (word.empty() || word[0] != '-')
    throw Error(fmt::format("{} takes no INPUT, but '{}' is given", command, printable(word)),
                fmt::format("see `switchback {} --help`", command), true);
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  throw Error(fmt::format("{} has no option {}", command, printable(word)),
              fmt::format("nearest: {}; `switchback {} --help` lists them", nearest(word, names), command), true);
}

// What stands above the options in a command's help.
std::string description(const Command& row) {
  std::string text = fmt::format("{}\n\nExamples:\n", row.about);
  for (const std::string& example : split(row.examples, '\n'))
    text += fmt::format("  switchback {}{}{}\n", row.name, example.empty() ? "" : " ", example);
  return text;
}

void run_command(const Command& row, std::vector<std::string> arguments) {
  CLI::App app(description(row), fmt::format("switchback {}", row.name));
  app.get_formatter()->column_width(34);
  app.allow_windows_style_options(false);
  const std::function<void()> run = row.setup(app);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    print_line(app.help());
    return;
  } catch (const CLI::ExtrasError&) {
    unknown_option(app, row.name);
  } catch (const CLI::ParseError& e) {
    throw Error(e.what(), fmt::format("see `switchback {} --help`", row.name), true);
  }
  run();
}

void run(std::vector<std::string> arguments) {
  if (arguments.empty())
    throw Error("no command given", fmt::format("commands: {}", fmt::join(command_names(), ", ")), true);
  const std::string command = arguments[0];
  for (const std::string& argument : arguments)
    if (argument == "--version") return print_line(version());
  if (command == "help" && arguments.size() > 1) return run({arguments[1], "--help"});
  if (command == "--help" || command == "-h" || command == "help") return print_line(overview());
  for (const Command& row : kCommands)
    if (command == row.name) return run_command(row, {arguments.begin() + 1, arguments.end()});
  if (command.starts_with("-"))
    throw Error(fmt::format("the command must come first, but '{}' does", printable(command)),
                "switchback COMMAND [OPTIONS] INPUT...", true);
  throw Error(
      fmt::format("unknown command '{}'", printable(command)),
      fmt::format("nearest: {}; commands: {}", nearest(command, command_names()), fmt::join(command_names(), ", ")),
      true);
}

// One line, whatever the text holds.
int report(std::string what, const std::string& hint, int code) {
  shares().wait_for_first();  // an error that all ranks meet is told once
  if (shares().later_rank()) what = fmt::format("rank {}: {}", shares().index(), what);
  std::string line = "switchback: error: " + what + (hint.empty() ? "" : " (" + hint + ")");
  for (char& c : line)
    if (c == '\n' || c == '\r') c = ' ';
  fmt::print(stderr, "{}\n", line);
  return code;
}

// The whole program; its exit code.
int run_program(std::vector<std::string> arguments) {
  try {
    shares().become_rank();
    set_run_arguments(arguments);
    run(std::move(arguments));
    return 0;
  } catch (const Error& e) {
    return report(e.what(), e.hint, e.usage ? 2 : 1);
  } catch (const std::bad_alloc&) {
    return report("out of memory", "use a smaller --batch or --memory, or fewer inputs and targets", 1);
  } catch (const std::exception& e) {
    return report(e.what(), "", 1);
  }
}

}  // namespace

void run_command_line(std::vector<std::string> arguments) { run(std::move(arguments)); }

}  // namespace switchback

int main(int argc, char** argv) {
  switchback::bound_spinning(argv);
  switchback::remove_temporaries_on_signals(switchback::say_interrupted);
  const int code = switchback::run_program({argv + 1, argv + argc});
  switchback::shares().finish(code);
  return code;
}
