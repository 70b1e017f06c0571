// `switchback train`: a run's folder, the same bits whatever the threads and interruptions, and its errors.
#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "engine/files/image.h"
#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "tests/support/cli_run.h"
#include "tests/support/temp_folder.h"

namespace switchback::test {
namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;

// The sample digits, those before `classes`.
std::string digits(const TempFolder& folder, int classes = 10) {
  const std::string name = "digits" + std::to_string(classes);
  for (int d = 0; d < classes; ++d) {
    fs::create_directories(folder / (name + "/" + std::to_string(d)));
    fs::copy_file(digit(d), folder / (name + "/" + std::to_string(d) + "/a.png"));
  }
  return folder / name;
}

Arguments training(const std::string& data, const std::string& run, const Arguments& more = {}) {
  Arguments all{"train", data, "--model", "lenet", "--batch-size", "4", "--augment", "crop:2,flip", "--seed", "3", "--quiet", "-o", run};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::vector<nlohmann::json> lines(const std::string& path) {
  std::vector<nlohmann::json> all;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) all.push_back(nlohmann::json::parse(line));
  return all;
}

// A .npy of whole numbers.
void write_integers(const std::string& path, const std::string& shape, const std::vector<int64_t>& values) {
  std::string header = "{'descr': '<i8', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.resize((10 + header.size() + 64) / 64 * 64 - 11, ' ');
  header += '\n';
  std::string bytes("\x93NUMPY\x01\0", 8);
  bytes += char(header.size() & 255), bytes += char(header.size() >> 8);
  bytes += header;
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int64_t));
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST(CliTrain, LearnsTenDigitsAndSaysSo) {
  const TempFolder folder;
  const std::string data = digits(folder), run = folder / "run";
  const auto d = succeed_json({"train", data, "--model", "lenet", "--validate", data, "--epochs", "12", "--batch-size", "5", "--json",
                               "--schedule", "cosine", "--lr", "0.002", "-o", run});
  EXPECT_EQ(d["command"], "train");
  EXPECT_EQ(d["steps"], 24);
  ASSERT_EQ(d["epochs"].size(), 12u);
  EXPECT_EQ(d["epochs"][11]["validation_accuracy"], 1.0);
  std::set<std::string> names{"curves.png", "last.safetensors", "log.jsonl", "run.json", "state.safetensors", "steps.jsonl"};
  for (int e = 0; e <= 12; ++e) names.insert(fmt::format("epoch-{:03}.safetensors", e));
  EXPECT_EQ(names_in(run), names);
  const auto log = lines(folder / "run/log.jsonl"), steps = lines(folder / "run/steps.jsonl");
  ASSERT_EQ(log.size(), 12u);
  ASSERT_EQ(steps.size(), 24u);
  EXPECT_EQ(log[3]["epoch"], 4);
  EXPECT_LT(log[11]["loss"].get<double>(), 0.1 * log[0]["loss"].get<double>());
  EXPECT_NEAR(log[1]["loss"].get<double>(), (steps[2]["loss"].get<double>() + steps[3]["loss"].get<double>()) / 2, 1e-12);
  EXPECT_EQ(steps[0]["learning_rate"], 0.002);
  EXPECT_EQ(steps[12]["learning_rate"], 0.001);
  EXPECT_EQ(bytes_of(folder / "run/last.safetensors"), bytes_of(folder / "run/epoch-012.safetensors"));
  EXPECT_GT(load_image(folder / "run/curves.png").height, 600);
  const auto judged = succeed_json({"evaluate", "--model", "lenet", "--weights", folder / "run/last.safetensors", "--json", "-o",
                                    folder / "out", data});
  EXPECT_EQ(judged["top1"], 1.0);
  EXPECT_NEAR(judged["loss"].get<double>(), log[11]["validation_loss"].get<double>(), 1e-6);
}

TEST(CliTrain, ResumedRunsHaveTheSameBits) {
  const TempFolder folder;
  const std::string data = digits(folder);
  succeed(training(data, folder / "whole", {"--epochs", "3", "--threads", "2"}));
  // Interrupted in the middle of an epoch, after steps whose lines were written, but not their state.
  succeed(training(data, folder / "parts", {"--epochs", "2", "--steps", "4", "--threads", "1", "--batch", "3"}));
  std::ofstream(folder / "parts/steps.jsonl", std::ios::app) << R"({"step":5,"loss":9,"learning_rate":9})" "\n" R"({"step":6,"lo)";
  succeed(training(data, folder / "parts", {"--epochs", "2", "--resume", "--threads", "2"}));  // a run may be lengthened
  succeed(training(data, folder / "parts", {"--epochs", "3", "--resume", "--threads", "1"}));
  EXPECT_EQ(bytes_of(folder / "whole/steps.jsonl"), bytes_of(folder / "parts/steps.jsonl"));
  for (const char* name : {"epoch-000", "epoch-001", "epoch-002", "epoch-003", "last"})
    EXPECT_EQ(bytes_of(folder / (std::string("whole/") + name + ".safetensors")),
              bytes_of(folder / (std::string("parts/") + name + ".safetensors"))) << name;
  const auto whole = lines(folder / "whole/log.jsonl"), parts = lines(folder / "parts/log.jsonl");
  ASSERT_EQ(parts.size(), 3u);
  for (size_t e = 0; e < 3; ++e)
    for (const char* key : {"epoch", "loss", "accuracy", "learning_rate"}) EXPECT_EQ(whole[e][key], parts[e][key]) << key;
}

TEST(CliTrain, InterruptedRunsGoOn) {
  if (const std::string why = why_no_terminal(); !why.empty()) GTEST_SKIP() << why;
  const TempFolder folder;
  const std::string data = digits(folder);
  const Arguments long_run{"--epochs", "9", "--save-every", "1"};
  succeed(training(data, folder / "whole", long_run));
  interrupt_switchback(training(data, folder / "parts", long_run), 80, SIGINT, [&](const std::string&) {
    std::error_code error;
    return fs::exists(folder / "parts/epoch-001.safetensors", error);
  });
  EXPECT_FALSE(fs::exists(folder / "parts/epoch-009.safetensors")) << "it was too late";
  Arguments more = long_run;
  more.push_back("--resume");
  succeed(training(data, folder / "parts", more));
  EXPECT_EQ(bytes_of(folder / "whole/last.safetensors"), bytes_of(folder / "parts/last.safetensors"));
  EXPECT_EQ(bytes_of(folder / "whole/steps.jsonl"), bytes_of(folder / "parts/steps.jsonl"));
}

TEST(CliTrain, ArraysInAGivenOrder) {
  const TempFolder folder;
  Tensor images({6, 1, 28, 28});
  for (int64_t i = 0; i < images.count(); ++i) images[i] = float(i * 37 % 101) / 50 - 1;
  write_npy(folder / "x.npy", images);
  write_integers(folder / "labels.npy", "6,", {0, 9, 3, 3, 1, 5});
  write_integers(folder / "order.npy", "2, 6", {5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5});
  // The same images in that order, without shuffling by --order of their own.
  Tensor turned({6, 1, 28, 28});
  for (int64_t i = 0; i < 6; ++i) std::memcpy(turned.data() + i * 784, images.data() + (5 - i) * 784, 784 * sizeof(float));
  write_npy(folder / "turned.npy", turned);
  write_integers(folder / "turned_labels.npy", "6,", {5, 1, 3, 3, 9, 0});
  write_integers(folder / "turned_order.npy", "2, 6", {0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0});
  const auto run = [&](const std::string& x, const std::string& labels, const std::string& order, const std::string& to) {
    succeed({"train", folder / x, "--labels", folder / labels, "--order", folder / order, "--model", "lenet", "--epochs", "2",
             "--batch-size", "4", "--optimizer", "sgd", "--lr", "0.01", "--momentum", "0.9", "--quiet", "-o", folder / to});
    return bytes_of(folder / (to + "/steps.jsonl"));
  };
  EXPECT_EQ(run("x.npy", "labels.npy", "order.npy", "a"), run("turned.npy", "turned_labels.npy", "turned_order.npy", "b"));

  const auto fails = [&](const Arguments& more, const std::string& word) {
    Arguments all{"train", folder / "x.npy", "--model", "lenet", "--epochs", "2", "-o", folder / "no"};
    all.insert(all.end(), more.begin(), more.end());
    const Outcome o = run_switchback(all);
    EXPECT_NE(o.code, 0) << o.line;
    EXPECT_NE(o.err.find(word), std::string::npos) << o.line << "\n" << o.err;
    EXPECT_FALSE(fs::exists(folder / "no"));
  };
  write_integers(folder / "ten.npy", "6,", {0, 9, 3, 3, 10, 5});
  write_integers(folder / "five.npy", "5,", {0, 9, 3, 3, 1});
  write_integers(folder / "far.npy", "2, 6", {6, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5});
  fails({}, "--labels");
  fails({"--labels", folder / "ten.npy"}, "label 4 is 10");
  fails({"--labels", folder / "five.npy"}, "5 labels");
  fails({"--labels", folder / "x.npy"}, "int64");
  fails({"--labels", folder / "labels.npy", "--order", folder / "far.npy"}, "image 6 of 6");
  fails({"--labels", folder / "labels.npy", "--order", folder / "labels.npy"}, "dimensions");
  Tensor small({1, 1, 8, 8});
  std::ranges::fill(small.values(), 0.f);
  write_npy(folder / "small.npy", small);
  const Outcome o = run_switchback({"train", folder / "small.npy", "--labels", folder / "labels.npy", "--model", "lenet", "--epochs", "1"});
  EXPECT_NE(o.err.find("[1,8,8]"), std::string::npos) << o.err;
}

TEST(CliTrain, ClearErrorsBeforeTheFirstStep) {
  const TempFolder folder;
  const std::string data = digits(folder), one = digits(folder, 1);
  fs::create_directories(folder / "empty");
  fs::create_directories(folder / "no_images/0");
  const auto fails = [&](const std::string& set, const Arguments& more, int code, const std::string& word) {
    Arguments all{"train", set, "--model", "lenet", "--epochs", "1", "-o", folder / "run"};
    all.insert(all.end(), more.begin(), more.end());
    const Outcome o = run_switchback(all);
    EXPECT_EQ(o.code, code) << o.line << "\n" << o.err;
    EXPECT_NE(o.err.find(word), std::string::npos) << o.line << "\n" << o.err;
    EXPECT_FALSE(fs::exists(folder / "run")) << o.line;
  };
  fails(folder / "empty", {}, 1, "empty");
  fails(one, {}, 1, "one class");
  // Labels 0 to 9 and one of 12, as a damaged file has them: no reason for three more outputs.
  const std::string far = folder / "far";
  fs::copy(data, far, fs::copy_options::recursive);
  fs::create_directories(far + "/12");
  fs::copy_file(digit(2), far + "/12/a.png");
  fails(far, {}, 1, "none is 10, and lenet has outputs 0 to 9");
  fails(data, {"--lr", "0"}, 2, "--lr");
  fails(data, {"--lr", "-1"}, 2, "--lr");
  fails(data, {"--lr", "nan"}, 2, "--lr");
  fails(data, {"--batch-size", "0"}, 2, "--batch-size");
  fails(data, {"--momentum", "0.9"}, 2, "sgd");
  fails(data, {"--optimizer", "rmsprop"}, 2, "adadelta");
  fails(data, {"--schedule", "steps"}, 2, "one-cycle");
  fails(data, {"--augment", "spin"}, 2, "crop:PADDING");
  fails(data, {"--loss", "mse"}, 1, "cross-entropy");
  fails(data, {"--precision", "bf16"}, 2, "fp32");
  fails(data, {"--freeze", "layer9"}, 2, "layer9");
  fails(data, {"--resume"}, 1, "no run");
  fails(data, {"--labels", folder / "x.npy"}, 2, "--labels");
  fails(data, {"--validate", folder / "missing"}, 1, "missing");
  fails(folder / "no_images", {}, 1, "no images");
  fails(data, {"--weights", std::string(SWITCHBACK_SOURCE_DIR) + "/weights/autoencoder.safetensors"}, 1, "not weights of lenet");
  const auto refuses_to = [&](const Arguments& all, const std::string& word) {
    const Outcome o = run_switchback(all);
    EXPECT_EQ(o.code, 1) << o.line;
    EXPECT_NE(o.err.find(word), std::string::npos) << o.line << "\n" << o.err;
  };
  refuses_to({"train", data, "--model", "autoencoder", "--epochs", "1", "-o", folder / "run"}, "--loss mse");
  refuses_to({"train", data, "--model", "encoder_decoder:classes=10,narrow=8", "--epochs", "1", "--batch-size", "3", "-o", folder / "run"},
             "one image, which batch norms cannot take");
  EXPECT_FALSE(fs::exists(folder / "run"));
  std::ofstream(folder / "file") << "x";
  refuses_to(training(data, folder / "file", {"--epochs", "1"}), "Not a directory");
  for (const char* name : {"log.jsonl", "curves.png"}) {  // what cannot be written is known before the first step
    const std::string run = folder / (std::string("of_") + name);
    fs::create_directories(run + "/" + name);
    refuses_to(training(data, run, {"--epochs", "1"}), "it is a folder");
    EXPECT_EQ(names_in(run), std::set<std::string>{name});
  }

  succeed(training(data, folder / "run", {"--epochs", "1", "--schedule", "cosine"}));
  const std::string state = bytes_of(folder / "run/state.safetensors");
  const auto refuses = [&](const Arguments& more, const std::string& word) {
    const Outcome o = run_switchback(training(data, folder / "run", more));
    EXPECT_EQ(o.code, 1) << o.line;
    EXPECT_NE(o.err.find(word), std::string::npos) << o.line << "\n" << o.err;
    EXPECT_EQ(bytes_of(folder / "run/state.safetensors"), state);
  };
  refuses({"--epochs", "1"}, "--resume");
  refuses({"--epochs", "2", "--schedule", "cosine", "--resume"}, "epochs");
  refuses({"--epochs", "1", "--schedule", "cosine", "--lr", "0.5", "--resume"}, "learning_rate");
  succeed(training(data, folder / "run", {"--epochs", "1", "--schedule", "cosine", "--resume"}));  // there is nothing left to do
  fs::copy_file(folder / "run/last.safetensors", folder / "run/state.safetensors", fs::copy_options::overwrite_existing);
  EXPECT_EQ(run_switchback(training(data, folder / "run", {"--epochs", "1", "--schedule", "cosine", "--resume"})).code, 1);
}

TEST(CliTrain, DrawsAHeadForOtherClasses) {
  const TempFolder folder;
  const std::string data = folder / "set";  // of names that are none of the model's
  for (int d = 0; d < 3; ++d) {
    const std::string name = std::string("set/class_") + char('a' + d);
    fs::create_directories(folder / name);
    fs::copy_file(digit(d), folder / (name + "/a.png"));
  }
  const Outcome o = succeed({"train", data, "--model", "lenet", "--weights", std::string(SWITCHBACK_SOURCE_DIR) + "/weights/lenet.safetensors",
                             "--freeze", "conv", "--epochs", "3", "-o", folder / "run"});
  EXPECT_NE(o.err.find("fc2 is drawn anew: 3 outputs instead of 10"), std::string::npos) << o.err;
  const Safetensors start(folder / "run/epoch-000.safetensors"), last(folder / "run/last.safetensors");
  const Safetensors shipped(std::string(SWITCHBACK_SOURCE_DIR) + "/weights/lenet.safetensors");
  EXPECT_EQ(last.dims("fc2.weight"), (Dims{3, 200}));
  for (const std::string name : {"conv1.weight", "conv2.bias", "fc1.weight"}) {
    EXPECT_TRUE(std::ranges::equal(start.load(name).values(), shipped.load(name).values())) << name;
    EXPECT_EQ(std::ranges::equal(last.load(name).values(), shipped.load(name).values()), name.starts_with("conv")) << name;
  }
  EXPECT_EQ(succeed_json({"evaluate", "--model", "lenet", "--weights", folder / "run/last.safetensors", "--json", "-o", folder / "out",
                          data})["top1"], 1.0);
}

TEST(CliTrain, UnreadableImagesAreLeftOut) {
  const TempFolder folder;
  for (int d = 0; d < 10; ++d)
    for (int copy = 0; copy < 12; ++copy) {
      fs::create_directories(folder / fmt::format("set/{}/more", d));
      fs::copy_file(digit(d), folder / fmt::format("set/{}/more/{}.png", d, copy));
    }
  std::ofstream(folder / "set/4/more/7.png") << "no picture";
  const Arguments run = training(folder / "set", folder / "run", {"--epochs", "2", "--json"});
  const Outcome o = succeed(run);
  const nlohmann::json left_out = o.json()["unreadable"];
  ASSERT_EQ(left_out.size(), 1u);
  EXPECT_EQ(left_out[0]["image"], 4 * 12 + 9);  // 0, 1, 10, 11, 2 … are the names in order
  EXPECT_EQ(o.err.find("left out"), o.err.rfind("left out")) << o.err;
  std::ofstream(folder / "set/5/more/7.png") << "none";  // two of 120 are more than a hundredth
  const Outcome many = run_switchback(training(folder / "set", folder / "other", {"--epochs", "1"}));
  EXPECT_EQ(many.code, 1);
  EXPECT_NE(many.err.find("2 of 120 images cannot be read"), std::string::npos) << many.err;
}

// The arrays of tests/golden/images.npz: sets of an .npz train like any other, and parts of one may validate.
TEST(CliTrain, TakesNpz) {
  const TempFolder folder;
  const std::string file = std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/images.npz";
  const auto d = succeed_json({"train", file + ":x_train", "--validate", file + ":x_test", "--model", "lenet", "--epochs", "2",
                               "--batch-size", "2", "--json", "-o", folder / "run"});
  EXPECT_EQ(d["steps"], 6);
  EXPECT_EQ(d["inputs"][0]["images"], 5);
  const Outcome o = run_switchback({"train", file, "--model", "lenet", "--epochs", "1", "-o", folder / "no"});
  EXPECT_EQ(o.code, 2);
  EXPECT_NE(o.err.find("x_test and x_train"), std::string::npos) << o.err;
  EXPECT_FALSE(fs::exists(folder / "no"));
}

// Images are read ahead, and what cannot be read is found by whichever thread meets it first: the step decides.
TEST(CliTrain, ReadingAheadChangesNothing) {
  const TempFolder folder;
  for (int d = 0; d < 10; ++d)
    for (int copy = 0; copy < 21; ++copy) {
      fs::create_directories(folder / fmt::format("set/{}", d));
      fs::copy_file(digit((d + copy) % 10), folder / fmt::format("set/{}/{}.png", d, copy));
    }
  for (const char* bad : {"set/3/4.png", "set/8/20.png"}) std::ofstream(folder / bad) << "no picture";
  const auto run = [&](const char* threads) {
    const Outcome o = run_switchback(training(folder / "set", folder / threads, {"--epochs", "2", "--threads", threads}));
    EXPECT_EQ(o.code, 0) << o.err;
    return o.err + bytes_of(folder / (std::string(threads) + "/steps.jsonl")) +
           bytes_of(folder / (std::string(threads) + "/last.safetensors"));
  };
  EXPECT_EQ(run("1"), run("2"));
}

TEST(CliTrain, JoinsDataSets) {
  const TempFolder folder;
  const auto write = [&](const std::string& name, int images) {
    std::string bytes;
    for (int i = 0; i < images; ++i) {
      bytes += char(i % 10);
      for (int b = 0; b < 3072; ++b) bytes += char((b * (i + 3)) % 251);
    }
    std::ofstream(folder / name, std::ios::binary) << bytes;
    return folder / name;
  };
  const std::string one = write("data_batch_1.bin", 12), two = write("data_batch_2.bin", 8);
  const auto d = succeed_json({"train", one, two, "--validate", two, "--model", "lenet", "--epochs", "1", "--batch-size", "10",
                               "--json", "-o", folder / "run"});
  EXPECT_EQ(d["steps"], 2);
  EXPECT_EQ(d["inputs"][0]["images"], 20);
}

TEST(CliTrain, StopsWhereTheLossIsNoNumber) {
  const TempFolder folder;
  const std::string data = digits(folder);
  const Outcome o = run_switchback({"train", data, "--model", "lenet", "--epochs", "50", "--batch-size", "5", "--optimizer", "sgd",
                                    "--lr", "1e20", "-o", folder / "run"});
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.err.find("learning rate 1e+20"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("the largest activation is"), std::string::npos) << o.err;
  EXPECT_NE(o.err.find("not finite from"), std::string::npos) << o.err;
  const Safetensors last(folder / "run/last.safetensors");
  for (const std::string& name : last.names()) {
    const Tensor values = last.load(name);
    for (const float v : values.values()) ASSERT_TRUE(std::isfinite(v)) << name;
  }
}

}  // namespace
}  // namespace switchback::test
