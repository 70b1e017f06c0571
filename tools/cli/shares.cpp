#include "tools/cli/shares.h"

#include <dlfcn.h>
#include <zlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "engine/files/files.h"
#include "engine/version.h"
#include "tools/cli/ranks.h"
#include "tools/cli/resumable.h"

namespace switchback {
namespace {

constexpr int64_t kLargestPart = int64_t(16) << 30;
constexpr size_t kLongestHeader = size_t(1) << 20;
constexpr int kMostShares = 1 << 20;
constexpr const char* kPartKey = "switchback_part";
constexpr int kPartVersion = 1;

const SwitchbackRanks* mpi = nullptr;

uint32_t crc_of(std::string_view bytes) {
  return uint32_t(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

// Whether mpirun or srun has started this process as one of several. (A batch script's own step has none of these.)
bool started_as_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MPI_LOCALRANKID"})
    if (std::getenv(name)) return true;
  return false;
}

// Beside the program in a build folder, in the library's folder where it is installed.
std::string ranks_library() {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& path : {folder / "libswitchback_mpi.so", folder / SWITCHBACK_MPI_FOLDER / "libswitchback_mpi.so"})
    if (fs::exists(path, error)) return path.string();
  return "";
}

void check_mpi(int code, int rank) {
  if (code != 0) throw Error(fmt::format("what rank {} has kept did not arrive (MPI's error {})", rank, code));
}

}  // namespace

Shares& shares() {
  static Shares one;
  return one;
}

std::pair<int64_t, int64_t> Shares::of(int64_t n) const {
  if (how_ == How::parts) return {0, 0};  // all is done
  const int64_t each = n / count_, more = n % count_;
  const int64_t first = each * index_ + std::min<int64_t>(index_, more);
  return {first, first + each + (index_ < more)};
}

void Shares::become_rank() {
  if (!started_as_rank()) return;
  const std::string library = ranks_library();
  const char* hint = "build with -DSWITCHBACK_MPI=ON where an MPI is installed, or use --shard I/N and `switchback merge`";
  if (library.empty()) throw Error("started as one of several ranks, but this build has no MPI", hint);
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!handle) throw Error(fmt::format("cannot load {}: {}", library, printable(dlerror())), "is the MPI there that it was built with?");
  const auto start = reinterpret_cast<decltype(&switchback_start_ranks)>(dlsym(handle, "switchback_start_ranks"));
  char why[256] = "it is another build's";
  mpi = start ? start(why, int(sizeof why)) : nullptr;
  if (!mpi || mpi->version != kRanksVersion) throw Error(fmt::format("{}: {}", library, why), hint);
  if (mpi->count > 1) how_ = How::ranks;
  index_ = mpi->rank, count_ = mpi->count;
  local_index_ = mpi->local_rank, local_count_ = mpi->local_count;
  if (index_ == 0) return;
  // What is printed is rank 0's.
  remove_temporaries_on_signals();
  if (!std::freopen("/dev/null", "w", stdout)) throw Error("cannot open /dev/null");
}

void Shares::become_shard(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == std::string::npos) usage(fmt::format("--shard {} is no I/N", printable(text)), "2/8 is the second of eight");
  const int64_t count = parse_whole("--shard", text.substr(slash + 1), 1, kMostShares);
  const int64_t index = parse_whole("--shard", text.substr(0, slash), 1, count);
  if (how_ == How::ranks) usage("--shard and several ranks of MPI", "one or the other divides the run");
  if (how_ == How::parts) return;
  how_ = How::shard;
  index_ = int(index - 1), count_ = int(count);
}

void Shares::become_parts(std::vector<PartHeader> parts) {
  if (how_ == How::ranks) usage("merge runs on one rank", "start it without mpirun");
  how_ = How::parts;
  count_ = parts.front().count();
  parts_ = std::move(parts);
}

void Shares::wait_for_first() const {
  if (later_rank()) std::this_thread::sleep_for(std::chrono::milliseconds(300));
}

void Shares::finish(int code) {
  if (!mpi) return;
  // Where all has been gathered nobody waits for anything: an abort beside ranks that end would be a race.
  if (code == 0 || gathered_) return mpi->finish();
  std::fflush(nullptr);
  mpi->abort(code);
}

int64_t Shares::agreed(int64_t value) const {
  if (ranks()) check_mpi(mpi->broadcast(reinterpret_cast<char*>(&value), sizeof value), 0);
  return value;
}

void Shares::round(const std::string& bytes, const std::function<void(std::string_view)>& take) const {
  if (later_rank()) return check_mpi(mpi->send(bytes.data(), int64_t(bytes.size())), index_);
  for (int from = 1; from < count_; ++from) {
    int64_t size = 0;
    check_mpi(mpi->receive_size(from, &size), from);
    std::string received(size_t(size), '\0');
    check_mpi(mpi->receive(from, received.data(), size), from);
    take(received);
  }
}

bool Shares::exchange(Job& job, Output& output, const std::string& stem, const Json& about, const std::string& bytes,
                      const std::function<void(std::string_view)>& take) {
  if (how_ == How::shard) return write_part(job, output, stem, about, bytes), false;
  if (ranks()) round(bytes, take);
  gathered_ = true;
  if (later_rank()) return false;
  for (const PartHeader& part : parts_) {
    if (const Json& was = part.about.at("about"); was != about)
      throw Error(fmt::format("{} was made of other data or weights than are there now: they differ in {}", printable(part.path),
                              differences(was, about)),
                  "run the shares again, or merge where they were run");
    const std::string file = read_file(part.path, kLargestPart);
    const std::string_view state = std::string_view(file).substr(file.find('\n') + 1);
    if (state.size() != part.about.at("bytes") || crc_of(state) != part.about.at("crc32"))
      throw Error(fmt::format("{} is damaged or not complete", printable(part.path)), "run this share again");
    take(state);
  }
  return true;
}

void Shares::write_part(Job& job, Output& output, const std::string& stem, const Json& about, const std::string& bytes) const {
  const std::string path = output.path({stem, fmt::format(".shard-{}-of-{}", index_ + 1, count_)}, "part");
  const Json header = {{kPartKey, kPartVersion},
                       {"version", kVersion},
                       {"shard", {index_, count_}},
                       {"arguments", run_arguments()},
                       {"device", job.ctx.device_name()},
                       {"about", about},
                       {"bytes", bytes.size()},
                       {"crc32", crc_of(bytes)}};
  make_directories(job.options.output);
  write_file_atomically(path, header.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n" + bytes);
  job.bar.clear();
  if (job.options.json) {
    Json document = job.header();
    document["shard"] = fmt::format("{}/{}", index_ + 1, count_);
    document["part"] = path;
    for (const auto& [input, why] : job.failed) document["failed"].push_back({{"path", input}, {"error", why}});
    job.add_footer(document);
    print_json(document);
  } else if (!job.options.quiet) {
    print_line(fmt::format("wrote {}; `switchback merge` joins it with the other {}", path, count_ - 1));
  }
}

Json dataset_json(const Dataset& data, int64_t images) {
  if (!shares().divided() || shares().ranks()) return nullptr;
  uint32_t names = 0;
  for (int64_t i = 0; i < images; ++i) {
    const std::string path = data.path(i);
    names = uint32_t(crc32_z(names, reinterpret_cast<const Bytef*>(path.data()), path.size()));
  }
  return {{"images", images}, {"paths", names}};
}

void require_read(int64_t read, int64_t images, const std::string& path) {
  if (read == 0) throw Error(fmt::format("none of {} of {} can be read", counted(images, "image"), printable(path)));
}

PartHeader read_part_header(const std::string& path) {
  (void)file_size(path);  // says what is wrong with a path that is no file
  std::ifstream file(path, std::ios::binary);
  std::string start(kLongestHeader, '\0');
  file.read(start.data(), std::streamsize(start.size()));
  start.resize(size_t(file.gcount()));
  PartHeader part{path, Json::parse(start.substr(0, start.find('\n')), nullptr, false)};
  const Json& a = part.about;
  const auto whole = [&](const char* key) { return a.contains(key) && a[key].is_number_unsigned(); };
  const bool known = a.is_object() && whole(kPartKey);
  if (!known) throw Error(fmt::format("{} is no part of a run", printable(path)), "--shard I/N writes FILE.shard-I-of-N.part");
  if (a[kPartKey] != kPartVersion || !a.contains("version") || a["version"] != kVersion)
    throw Error(fmt::format("{} was written by another version of the program", printable(path)), "run the shares again");
  const bool complete = whole("bytes") && whole("crc32") && a.contains("about") && a.contains("device") && a.contains("shard") &&
                        a["shard"].is_array() && a["shard"].size() == 2 && a["shard"][0].is_number_unsigned() &&
                        a["shard"][1].is_number_unsigned() && a["shard"][1] <= kMostShares && a["shard"][0] < a["shard"][1] &&
                        a.contains("arguments") && a["arguments"].is_array() && !a["arguments"].empty() &&
                        std::ranges::all_of(a["arguments"], [](const Json& word) { return word.is_string(); });
  if (!complete) throw Error(fmt::format("{} is damaged or not complete", printable(path)), "run this share again");
  return part;
}

void add_shard(CLI::App& app, Options& o) {
  o.divides = true;
  app.add_option_function<std::string>("--shard", [](const std::string& text) { shares().become_shard(text); },
                                       "run share I of N alone and write what it has kept; `switchback merge` joins all")
      ->type_name("I/N")
      ->group("Running");
}

}  // namespace switchback
