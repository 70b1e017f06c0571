#include "tests/support/cli_run.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/files/json.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void redirect(int to, const char* path) {
  const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || dup2(file, to) < 0) _exit(126);
  close(file);
}

[[noreturn]] void child(std::vector<char*>& argv, const std::string& out, const std::string& err,
                        const RunLimits& limits) {
  redirect(STDOUT_FILENO, limits.stdout_to ? limits.stdout_to : out.c_str());
  redirect(STDERR_FILENO, err.c_str());
  if (limits.file_bytes >= 0) {
    const rlimit limit{rlim_t(limits.file_bytes), rlim_t(limits.file_bytes)};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  execv(argv[0], argv.data());
  _exit(127);
}

// For execv, pointing into `words`; the outcome gets its line.
std::vector<char*> argument_list(const std::vector<std::string>& arguments, std::vector<std::string>& words,
                                 Outcome& outcome) {
  words = {SWITCHBACK_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
    outcome.line += (outcome.line.empty() ? "" : " ") + word;
  }
  argv.push_back(nullptr);
  return argv;
}

// Whether the process has set its handler: before that it would end by the signal without a word.
bool catches(pid_t pid, int signal) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string word; status >> word;)
    if (word == "SigCgt:" && status >> word) return std::stoull(word, nullptr, 16) >> (signal - 1) & 1;
  return false;
}

int wait_for(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

nlohmann::json Outcome::json() const {
  nlohmann::json document = parse_json(out, nullptr, false);
  EXPECT_FALSE(document.is_discarded()) << "no JSON on stdout of: " << line << "\n" << out << err;
  return document.is_discarded() ? nlohmann::json() : document;
}

Outcome run_switchback(const std::vector<std::string>& arguments, const RunLimits& limits) {
  const TempFolder captured;
  const std::string out = captured / "out", err = captured / "err";
  std::vector<std::string> words;
  Outcome outcome;
  std::vector<char*> argv = argument_list(arguments, words, outcome);
  const pid_t pid = fork();
  if (pid == 0) child(argv, out, err, limits);
  outcome.code = wait_for(pid);
  outcome.out = slurp(out);
  outcome.err = slurp(err);
  return outcome;
}

std::string why_no_terminal() {
  int terminal = -1, other = -1;
  if (openpty(&terminal, &other, nullptr, nullptr, nullptr) != 0)
    return std::string("no pseudo-terminal can be had here: ") + std::strerror(errno);
  close(terminal);
  close(other);
  return "";
}

Outcome interrupt_switchback(const std::vector<std::string>& arguments, int columns, int signal,
                             const std::function<bool(const std::string&)>& watch) {
  std::vector<std::string> words;
  Outcome outcome;
  std::vector<char*> argv = argument_list(arguments, words, outcome);
  int terminal = -1;
  const winsize size{24, uint16_t(columns), 0, 0};
  const pid_t pid = forkpty(&terminal, nullptr, nullptr, &size);
  if (pid == 0) {
    ::signal(signal, SIG_DFL);  // a shell's background jobs ignore SIGINT, and what is ignored stays so
    execv(argv[0], argv.data());
    _exit(127);
  }
  if (pid < 0) {
    ADD_FAILURE() << "no pseudo-terminal: " << std::strerror(errno);
    return outcome;
  }
  bool sent = false;
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    const bool late = std::chrono::steady_clock::now() - start > std::chrono::seconds(60);
    if (!sent && ((catches(pid, signal) && watch(outcome.out)) || late)) {
      EXPECT_FALSE(late) << outcome.line << " did not get so far: " << outcome.out;
      if (signal != SIGINT || write(terminal, "\x03", 1) != 1) kill(pid, signal);
      sent = true;
    }
    pollfd shown{terminal, POLLIN, 0};
    if (poll(&shown, 1, 5) == 0) continue;
    char text[4096];
    const ssize_t got = read(terminal, text, sizeof text);
    if (got <= 0) break;  // the other end is closed
    outcome.out.append(text, size_t(got));
  }
  outcome.code = wait_for(pid);
  close(terminal);
  return outcome;
}

Outcome succeed(const std::vector<std::string>& arguments) {
  Outcome o = run_switchback(arguments);
  EXPECT_EQ(o.code, 0) << o.line << "\n" << o.err;
  return o;
}

nlohmann::json succeed_json(const std::vector<std::string>& arguments) { return succeed(arguments).json(); }

std::string result(const nlohmann::json& document, const std::string& ending, size_t input) {
  for (const nlohmann::json& file : document["inputs"].at(input)["files"])
    if (const std::string path = file["path"]; path.ends_with(ending)) return path;
  ADD_FAILURE() << "no " << ending << " of input " << input;
  return "";
}

std::string digit(int d) { return fmt::format("{}/weights/samples/digit_{}.png", SWITCHBACK_SOURCE_DIR, d); }

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path << " is not there";
  return {std::istreambuf_iterator<char>(file), {}};
}

std::set<std::string> names_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

}  // namespace switchback::test
