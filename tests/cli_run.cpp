#include "cli_run.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "temp_folder.h"

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
  signal(SIGINT, SIG_DFL);
  execv(argv[0], argv.data());
  _exit(127);
}

}  // namespace

nlohmann::json Outcome::json() const {
  nlohmann::json document = nlohmann::json::parse(out, nullptr, false);
  EXPECT_FALSE(document.is_discarded()) << "no JSON on stdout of: " << line << "\n" << out << err;
  return document.is_discarded() ? nlohmann::json() : document;
}

Outcome run_switchback(const std::vector<std::string>& arguments, const RunLimits& limits) {
  const TempFolder captured;
  const std::string out = captured / "out", err = captured / "err";
  std::vector<std::string> words = {SWITCHBACK_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  Outcome outcome;
  std::vector<char*> argv;
  for (std::string& word : words) {
    argv.push_back(word.data());
    outcome.line += (outcome.line.empty() ? "" : " ") + word;
  }
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) child(argv, out, err, limits);
  if (limits.interrupt_after_ms >= 0) {
    usleep(useconds_t(limits.interrupt_after_ms) * 1000);
    kill(pid, SIGINT);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.out = slurp(out);
  outcome.err = slurp(err);
  return outcome;
}

}  // namespace switchback::test
