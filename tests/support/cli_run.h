// Running the real `switchback` binary from tests.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace switchback::test {

struct Outcome {
  int code = -1;     // exit code; 128 + N where signal N ended it
  std::string out;   // stdout
  std::string err;   // stderr
  std::string line;  // the command line, to repeat it

  nlohmann::json json() const;  // stdout as one JSON document; null (and a failure) where it is none
};

struct RunLimits {
  long long file_bytes = -1;        // RLIMIT_FSIZE of the child
  const char* stdout_to = nullptr;  // instead of capturing it
};

Outcome run_switchback(const std::vector<std::string>& arguments, const RunLimits& limits = {});
// The same, which must end with 0.
Outcome succeed(const std::vector<std::string>& arguments);
nlohmann::json succeed_json(const std::vector<std::string>& arguments);  // and give one JSON document

// The path of an input's result that ends so: ".npy", "-bias.npy"; fails where there is none.
std::string result(const nlohmann::json& document, const std::string& ending, size_t input = 0);

std::string digit(int d);                               // a sample digit's picture
std::string bytes_of(const std::string& path);          // fails where there is no such file
std::set<std::string> names_in(const std::string& folder);

// Why interrupt_switchback cannot work here (some containers have no pseudo-terminals), or "".
std::string why_no_terminal();

// Runs it in a terminal of its own, `columns` wide. Once it handles signals, `watch` is given all that the terminal has
// shown so far, again and again until it returns true or 60 s are over; then `signal` comes: SIGINT by typing Ctrl-C.
// `out` holds what was shown.
Outcome interrupt_switchback(const std::vector<std::string>& arguments, int columns, int signal,
                             const std::function<bool(const std::string& shown)>& watch);

}  // namespace switchback::test
