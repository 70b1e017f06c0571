// Files that must be refused: each with a one-line error and a hint, no crash, and nothing left behind.
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <zlib.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "engine/files/dataset.h"
#include "engine/files/files.h"
#include "engine/files/image.h"
#include "engine/files/labels.h"
#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "tests/support/temp_folder.h"

namespace switchback {
namespace {

using test::expect_error;
using test::TempFolder;
namespace fs = std::filesystem;

const std::string kData = SWITCHBACK_SOURCE_DIR "/../shared/data";

// ---- files

TEST(BadFile, Reading) {
  const TempFolder t;
  const std::string file = t.put("file", "0123456789");
  expect_error("No such file", [&] { read_file(t / "missing", 100); });
  expect_error("No such file", [&] { MappedFile map(t / "missing"); });
  expect_error("Is a directory", [&] { read_file(t.path(), 100); });
  expect_error("Is a directory", [&] { MappedFile map(t.path()); });
  expect_error("Not a directory", [&] { read_file(file + "/below", 100); });
  expect_error("10 bytes, at most 9", [&] { read_file(file, 9); });
  expect_error("not a regular file", [&] { read_file("/dev/zero", 1 << 20); });
  ASSERT_EQ(mkfifo((t / "fifo").c_str(), 0600), 0);
  expect_error("not a regular file", [&] { read_file(t / "fifo", 100); });  // and does not hang
}

TEST(BadFile, Writing) {
  const TempFolder t;
  const std::string file = t.put("file", "old");
  expect_error("No such file", [&] { write_file_atomically(t / "missing/x", std::string_view("x")); });
  expect_error("Not a directory", [&] { write_file_atomically(file + "/x", std::string_view("x")); });
  expect_error("Is a directory", [&] { write_file_atomically(t.path(), std::string_view("x")); });
  expect_error("not a regular file", [&] { write_file_atomically("/dev/full", std::string_view("x")); });
  expect_error("cannot write", [&] { write_file_atomically("/proc/x", std::string_view("x")); });
  expect_error("cannot make the folder", [&] { make_directories(file + "/x"); });
  expect_error("cannot make the folder", [&] { make_directories(file); });
  expect_error("cannot make the folder", [&] { make_directories("/proc/x"); });
  expect_error(
      "written twice",
      [&] {
        StagedFiles staged;
        staged.add(t / "x", std::string_view("1"));
        staged.add(t / "x", std::string_view("2"));
      },
      false);
  EXPECT_EQ(t.files(), 1u);
  EXPECT_EQ(read_file(file, 10), "old");
}

// A write that fails half-way, as on a full disk: here a limit on the size of files.
TEST(BadFile, DiskFull) {
  const TempFolder t;
  const std::string file = t.put("file", "old");
  struct rlimit old;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto previous = signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = old;
  small.rlim_cur = 100'000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string large(300'000, 'x');
  expect_error("File too large", [&] { write_file_atomically(file, large); });
  expect_error("File too large", [&] {
    StagedFiles staged;
    staged.add(t / "first", std::string_view("x"));
    staged.add(t / "second", large);
    staged.commit();
  });
  const Tensor x = Tensor::zeros({100, 1000});
  expect_error("File too large", [&] { write_npy(t / "x.npy", x); });
  expect_error("File too large", [&] { write_safetensors(t / "x.safetensors", {{"x", x}}); });
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, previous);
  EXPECT_EQ(t.files(), 1u) << "something partial was left";
  EXPECT_EQ(read_file(file, 10), "old");
}

// The last rename fails: what was renamed before it goes again.
TEST(BadFile, CommitFailsHalfWay) {
  const TempFolder t;
  StagedFiles staged;
  staged.add(t / "a", std::string_view("1"));
  staged.add(t / "b", std::string_view("2"));
  fs::create_directory(t / "b");
  expect_error("cannot write", [&] { staged.commit(); });
  EXPECT_FALSE(fs::exists(t / "a"));
  EXPECT_EQ(t.files(), 1u);  // the folder b
}

// ---- safetensors

std::string safetensors_of(const std::string& header, const std::string& data, int64_t length = -1) {
  const uint64_t n = length < 0 ? header.size() : uint64_t(length);
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + data;
}

TEST(BadSafetensors, Headers) {
  const TempFolder t;
  const auto refuse = [&](const std::string& part, const std::string& bytes) {
    SCOPED_TRACE(bytes.substr(0, 200));
    expect_error(part, [&] { Safetensors file(t.put("x", bytes)); });
  };
  const std::string data(16, '\0');
  const auto tensor = [](const std::string& name, const std::string& dtype, const std::string& shape,
                         const std::string& offsets) {
    return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
  };
  const auto file = [&](const std::string& entries) { return safetensors_of("{" + entries + "}", data); };
  // The form that all others differ from is right.
  EXPECT_EQ(Safetensors(t.put("good", file(tensor("a", "F32", "[2,2]", "[0,16]")))).load("a").count(), 4);

  refuse("too few", "");
  refuse("too few", "1234567");
  refuse("would have 100 bytes", safetensors_of("{}", "", 100));
  refuse("would have", safetensors_of("{}", "", INT64_MAX));
  refuse("would have", std::string(8, '\xff') + "{}");
  refuse("bad safetensors header", safetensors_of("", ""));
  refuse("bad safetensors header", safetensors_of("{", ""));
  refuse("not an object", safetensors_of("[]", ""));
  refuse("bad safetensors header", safetensors_of("{\"\xff\":1}", ""));
  refuse("nested too deeply", safetensors_of(std::string(100'000, '[') + std::string(100'000, ']'), ""));
  refuse("'a' stands twice", file(tensor("a", "F32", "[2]", "[0,8]") + "," + tensor("a", "F32", "[2]", "[8,16]")));
  refuse("'dtype' stands twice", file(R"("a":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]})"));
  refuse("needs dtype", file(R"("a":5)"));
  refuse("needs dtype", file(R"("a":{"shape":[4],"data_offsets":[0,16]})"));
  for (const char* shape :
       {"4", "[4.0]", "[-4]", "[\"4\"]", "null", "[99999999999999999999]", "[18446744073709551615]"})
    refuse("needs dtype", file(tensor("a", "F32", shape, "[0,16]")));
  for (const char* offsets : {"16", "[0]", "[0,16,16]", "[-1,16]", "[0,16.0]", "[0,18446744073709551615]"})
    refuse("needs dtype", file(tensor("a", "F32", "[4]", offsets)));
  refuse("unknown dtype 'F31'", file(tensor("a", "F31", "[4]", "[0,16]")));
  refuse("has 9 dimensions", file(tensor("a", "U8", "[1,1,1,1,1,1,1,1,16]", "[0,16]")));
  refuse("lies at 0..17 of 16", file(tensor("a", "U8", "[17]", "[0,17]")));
  refuse("lies at 16..0", file(tensor("a", "U8", "[16]", "[16,0]")));
  refuse("does not fill", file(tensor("a", "F32", "[3]", "[0,16]")));
  refuse("does not fill", file(tensor("a", "F32", "[4611686018427387908]", "[0,16]")));  // 4 * n wraps to 16
  refuse("does not fill", file(tensor("a", "F32", "[4294967296,4294967296]", "[0,0]")));
  refuse("overlaps", file(tensor("a", "F32", "[4]", "[0,16]") + "," + tensor("b", "F32", "[2]", "[8,16]")));
  refuse("leaves a hole", file(tensor("a", "F32", "[1]", "[0,4]") + "," + tensor("b", "F32", "[2]", "[8,16]")));
  refuse("belong to no tensor", file(tensor("a", "F32", "[3]", "[0,12]")));
  refuse("belong to no tensor", safetensors_of("{}", data));
  refuse("__metadata__", file(R"("__metadata__":5)"));
  refuse("__metadata__", file(R"("__metadata__":{"a":5})"));
  refuse("'a\\x0ab'", file(tensor("a\\nb", "F31", "[4]", "[0,16]")));  // control characters stay one line
}

TEST(BadSafetensors, Access) {
  const TempFolder t;
  const std::vector<uint8_t> bytes{1, 2, 3, 255, 255, 255, 255, 255};
  const std::vector<float> floats{1, 2};
  write_safetensors(t / "x", {{"u8", {8}, bytes}, {"f32", {2}, floats}});
  const Safetensors file(t / "x");
  expect_error("has no tensor 'v'", [&] { file.load("v"); });
  expect_error("is U8, a float type", [&] { file.load("u8"); });
  expect_error("is F32, an integer type", [&] { file.load_ints("f32"); });
  const std::string large =
      safetensors_of(R"({"a":{"dtype":"U64","shape":[1],"data_offsets":[0,8]}})", std::string(8, '\xff'));
  expect_error(
      "too large", [&] { Safetensors(t.put("y", large)).load_ints("a"); }, false);
  expect_error(
      "twice",
      [&] {
        write_safetensors(t / "z", {{"a", {8}, bytes}, {"a", {8}, bytes}});
      },
      false);
  expect_error(
      "bytes",
      [&] {
        write_safetensors(t / "z", {{"a", {9}, bytes}});
      },
      false);
  expect_error(
      "not UTF-8",
      [&] {
        write_safetensors(t / "z", {{"\xff", {8}, bytes}});
      },
      false);
  EXPECT_FALSE(fs::exists(t / "z"));
}

// Reads everything that a file offers; Errors are fine, anything else is not.
void read_all(const std::string& path) {
  try {
    const Safetensors file(path);
    for (const std::string& name : file.names()) {
      if (file.dtype(name)[0] == 'F' || file.dtype(name)[0] == 'B') {
        file.load(name);
      } else {
        file.load_ints(name);
      }
    }
  } catch (const Error& e) {
    EXPECT_EQ(std::strchr(e.what(), '\n'), nullptr) << e.what();
  }
}

// Every shortened file must be refused; every file with one byte changed must be read or refused without a crash.
void damage(const TempFolder& t, const std::string& good, const std::function<void(const std::string&)>& read,
            const std::function<void(const std::string&)>& read_or_refuse) {
  for (size_t n = 0; n < good.size(); ++n) {
    SCOPED_TRACE(fmt::format("cut to {} of {} bytes", n, good.size()));
    expect_error(t.path(), [&] { read(t.put("cut", good.substr(0, n))); });
  }
  expect_error(t.path(), [&] { read(t.put("longer", good + '\0')); });
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int flip : {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff}) {
      std::string bad = good;
      bad[i] = char(bad[i] ^ flip);
      SCOPED_TRACE(fmt::format("byte {} xor {:#x}", i, flip));
      read_or_refuse(t.put("flipped", bad));
    }
  }
}

TEST(BadSafetensors, CutAndFlipped) {
  const TempFolder t;
  const std::vector<uint8_t> gates{0, 1, 2};
  const std::vector<float> values{1, 2};
  write_safetensors(t / "good", {{"g", {3}, gates}, {"w", {2, 1}, values}}, {{"k", "v"}});
  damage(
      t, read_file(t / "good", 1 << 20), [](const std::string& path) { Safetensors file(path); }, read_all);
}

// ---- npy

std::string npy_of(const std::string& dict, const std::string& data,
                   const std::string& version = std::string("\1\0", 2)) {
  std::string out = "\x93NUMPY" + version + char(dict.size() & 255) + char(dict.size() >> 8);
  if (version[0] != 1) out += std::string(2, '\0');
  return out + dict + data;
}

TEST(BadNpy, Headers) {
  const TempFolder t;
  const std::string data(24, '\0');
  const auto refuse = [&](const std::string& part, const std::string& bytes, const std::vector<int>& ranks = {}) {
    SCOPED_TRACE(bytes.substr(0, 200));
    expect_error(part, [&] { read_npy(t.put("x.npy", bytes), ranks); });
  };
  const auto dict = [](const std::string& descr, const std::string& order, const std::string& shape) {
    return fmt::format("{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}\n", descr, order, shape);
  };
  const std::string good = npy_of(dict("'<f4'", "False", "(2, 3)"), data);
  EXPECT_EQ(read_npy(t.put("good.npy", good)).count(), 6);

  refuse("not a NumPy", "");
  refuse("not a NumPy", "hello, this is text");
  refuse("unknown format version 4.0", npy_of(dict("'<f4'", "False", "(2, 3)"), data, std::string("\4\0", 2)));
  refuse("unknown format version 1.7", npy_of(dict("'<f4'", "False", "(2, 3)"), data, "\1\7"));
  refuse("would have 65535 bytes", std::string("\x93NUMPY\1\0\xff\xff{", 11));
  refuse("would have 4294967295 bytes", std::string("\x93NUMPY\2\0\xff\xff\xff\xff{", 13));
  for (const char* type : {"'<f8'", "'>f4'", "'<f2'", "'|u1'", "'<i8'", "'|b1'", "'|O'"})
    refuse(fmt::format("type is {}", type), npy_of(dict(type, "False", "(2, 3)"), data));
  refuse("type is a record", npy_of(dict("[('a', '<f4'), ('b', '<f4')]", "False", "(3,)"), data));
  refuse("Fortran order", npy_of(dict("'<f4'", "True", "(2, 3)"), data));
  refuse("2 dimensions [2,3], 3 or 4 are needed", good, {3, 4});
  refuse("0 dimensions []", npy_of(dict("'<f4'", "False", "()"), data.substr(0, 4)));
  refuse("7 dimensions", npy_of(dict("'<f4'", "False", "(1, 1, 1, 1, 1, 2, 3)"), data));
  refuse("is empty", npy_of(dict("'<f4'", "False", "(0, 3)"), ""));
  refuse("needs 28 bytes", npy_of(dict("'<f4'", "False", "(7,)"), data));
  refuse("the file has 24", npy_of(dict("'<f4'", "False", "(5,)"), data));
  refuse("overflows", npy_of(dict("'<f4'", "False", "(4294967296, 4294967296)"), data));
  for (const char* shape : {"(2, -3)", "[2, 3]", "(2 3)", "(2, 3", "6", "(2.0, 3)", "(,)", "(9999999999999999999,)"})
    refuse("header cannot be read", npy_of(dict("'<f4'", "False", shape), data));
  refuse("header cannot be read", npy_of(dict("'<f4'", "Maybe", "(2, 3)"), data));
  refuse("header cannot be read", npy_of("{'descr': '<f4', 'shape': (2, 3)}", data));
  refuse("header cannot be read",
         npy_of("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (6,)}", data));
  refuse("header cannot be read", npy_of(dict("'<f4'", "False", "(2, 3)") + "x", data));
  refuse("header cannot be read", npy_of("", data));
  for (const float v : {NAN, INFINITY, -INFINITY}) {
    std::string bytes = data;
    std::memcpy(bytes.data() + 8, &v, 4);
    refuse("element 2", npy_of(dict("'<f4'", "False", "(2, 3)"), bytes));
  }
  expect_error(
      "cannot be saved", [] { npy_bytes(Tensor()); }, false);
}

TEST(BadNpy, CutAndFlipped) {
  const TempFolder t;
  Tensor x({2, 2});
  for (int i = 0; i < 4; ++i) x[i] = float(i);
  const std::vector<uint8_t> good = npy_bytes(x);
  const auto read = [](const std::string& path) { read_npy(path); };
  damage(t, {good.begin(), good.end()}, read, [&](const std::string& path) {
    try {
      read(path);
    } catch (const Error& e) {
      EXPECT_EQ(std::strchr(e.what(), '\n'), nullptr) << e.what();
    }
  });
}

// ---- images

std::string text_of(const std::vector<uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

Image noise(int width, int height) {
  Image out{width, height, 3, std::vector<uint8_t>(size_t(width * height * 3))};
  uint32_t state = 1;
  for (uint8_t& v : out.pixels) v = uint8_t((state = state * 1664525u + 1013904223u) >> 24);
  return out;
}

std::string big_endian(uint32_t v) { return {char(v >> 24), char(v >> 16 & 255), char(v >> 8 & 255), char(v & 255)}; }
std::string png_chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  return big_endian(uint32_t(data.size())) + body +
         big_endian(uint32_t(crc32(0, reinterpret_cast<const Bytef*>(body.data()), uInt(body.size()))));
}
// A PNG whose header says what it likes, around any compressed data.
std::string png_of(uint32_t width, uint32_t height, const std::string& data) {
  uLongf size = compressBound(uLong(data.size()));
  std::string packed(size, '\0');
  compress2(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(data.data()),
            uLong(data.size()), 9);
  packed.resize(size);
  return "\x89PNG\r\n\x1a\n" +
         png_chunk("IHDR", big_endian(width) + big_endian(height) + std::string("\x08\x00\0\0\0", 5)) +
         png_chunk("IDAT", packed) + png_chunk("IEND", "");
}

TEST(BadImage, Refused) {
  const TempFolder t;
  const auto refuse = [&](const std::string& part, const std::string& bytes) {
    SCOPED_TRACE(bytes.substr(0, 60));
    expect_error(part, [&] { load_image(t.put("x.png", bytes)); });
  };
  EXPECT_EQ(load_image(t.put("good.png", png_of(2, 1, std::string("\0\1\2", 3)))).pixels[3], 2);

  expect_error("No such file", [&] { load_image(t / "missing.png"); });
  expect_error("Is a directory", [&] { load_image(t.path()); });
  refuse("empty", "");
  refuse("not an image", "This is a text that someone renamed.\n");
  refuse("not an image", std::string(1000, '\0'));
  refuse("x0", png_of(4, 0, "x"));
  refuse("0x", png_of(0, 4, "x"));
  refuse("50000x50000, more than 100 megapixels", png_of(50'000, 50'000, std::string(100'000, '\0')));
  refuse("megapixels", png_of(100'001, 1'000, std::string(100'000, '\0')));
  refuse("x.png", png_of(0xffffffffu, 0xffffffffu, "x"));
  refuse("cannot hold", png_of(9'000, 9'000, "x"));
  refuse("not an image", png_of(4, 4, "x"));                            // too few pixels
  refuse("not an image", png_of(4, 4, std::string(50'000'000, '\0')));  // unfolds to far more than the picture
  // stb names the chunk that it does not know: one that must be known begins with a capital.
  refuse("(A\\x0aB\\x1b PNG chunk", png_of(2, 1, "abc").insert(33, png_chunk("A\nB\x1b", "")));
  // A Huffman table of 16 x 255 codes: stb's arrays hold 256.
  refuse("Huffman table", "\xff\xd8\xff\xc4\x10\x03" + std::string(1, '\0') + std::string(5000, '\xff') + "\xff\xd9");
  // The same behind a fill byte, which stb allows; nothing may reach it that was not looked at.
  refuse("unknown format",
         "\xff\xff\xd8\xff\xc4\x10\x03" + std::string(1, '\0') + std::string(5000, '\xff') + "\xff\xd9");
  // A BMP of 10^8 x 10^8 pixels of 65535 bits, the product of which no int64 holds.
  const std::string side("\0\xe1\xf5\x05", 4);
  refuse("megapixels", "BM" + std::string(12, '\0') + std::string("\x28\0\0\0", 4) + side + side + "\1" +
                           std::string(1, '\0') + "\xff\xff" + std::string(30, '\0'));
  refuse("first chunk is not IHDR", png_of(2, 1, "abc").insert(8, png_chunk("CgBI", "\x50\x01\x20\x06")));
  refuse("cannot hold", "P5 9000 9000 255\nabc");
  refuse("megapixels", "P6 50000 50000 255\nabc");
  refuse("0x1", "P5 0 1 255\nabc");
  refuse("cut off", "P6 2 1 255\nabcde");
  refuse("largest value 65535", "P5 1 1 65535\nab");
  refuse("too large", "P5 99999999999999999999 1 255\n");
  refuse("header is damaged", "P5 x");
  refuse("header is damaged", "P5 1 1 #");
  expect_error(
      "cannot be saved",
      [] {
        png_bytes({2, 2, 3, {1, 2}});
      },
      false);
  expect_error(
      "cannot be saved",
      [] {
        png_bytes({0, 0, 3, {}});
      },
      false);
}

TEST(BadImage, CutAndFlipped) {
  const TempFolder t;
  const std::string png = text_of(png_bytes(noise(9, 7)));
  for (size_t n = 0; n + 12 < png.size(); ++n) {  // the last chunk only says that it is the end
    SCOPED_TRACE(fmt::format("cut to {} of {} bytes", n, png.size()));
    expect_error("cut.png", [&] { load_image(t.put("cut.png", png.substr(0, n))); });
  }
  for (size_t i = 0; i < png.size(); ++i) {
    for (const int flip : {0x01, 0x10, 0x80, 0xff}) {
      std::string bad = png;
      bad[i] = char(bad[i] ^ flip);
      try {
        load_image(t.put("flipped.png", bad));
      } catch (const Error&) {
      }
    }
  }
}

TEST(BadImage, CutAndFlippedPhotos) {
  if (!fs::exists(kData + "/photos")) GTEST_SKIP() << "shared/data is not here";
  const TempFolder t;
  for (const char* name : {"cat.jpg", "bird.bmp"}) {
    const std::string good = read_file(kData + "/photos/" + name, 1 << 24);
    for (const double part : {0.001, 0.01, 0.3, 0.6, 0.999}) {
      SCOPED_TRACE(fmt::format("{} cut to {}", name, part));
      expect_error("not an image",
                   [&] { load_image(t.put("cut", good.substr(0, size_t(double(good.size()) * part)))); });
    }
    uint32_t state = 7;
    for (int i = 0; i < 60; ++i) {
      std::string bad = good;
      for (int k = 0; k <= i % 3; ++k) {
        state = state * 1664525u + 1013904223u;
        const size_t at = (i % 2 ? size_t(state >> 8) % good.size() : size_t(state >> 8) % 700);
        bad[at] = char(state >> 13);
      }
      try {
        load_image(t.put("flipped", bad));
      } catch (const Error&) {
      }
    }
  }
}

TEST(BadPreprocess, Values) {
  const TempFolder t;
  const auto refuse = [&](const std::string& part, const std::string& json) {
    SCOPED_TRACE(json);
    expect_error(part, [&] { load_preprocess(t.put("x.json", json)); });
  };
  const auto with = [](const std::string& more) { return R"({"resize":"direct","size":[28,28])" + more + "}"; };
  EXPECT_EQ(load_preprocess(t.put("good.json", with(""))).size[0], 28);

  expect_error("No such file", [&] { load_preprocess(t / "missing.json"); });
  refuse("not valid JSON", "");
  refuse("not valid JSON", "{");
  refuse("not valid JSON", with(R"(,"scale":1e999)"));
  refuse("nested too deeply", std::string(100'000, '['));
  refuse("not a JSON object", "[]");
  refuse("\"resize\" is missing", "{}");
  refuse("\"resize\" is \"stretch\"", R"({"resize":"stretch","size":[1,1]})");
  refuse("\"resize\" is 5", R"({"resize":5,"size":[1,1]})");
  refuse("\"size\" is missing", R"({"resize":"direct"})");
  for (const char* size : {"28", "[28]", "[28,28,3]", "[0,28]", "[-1,28]", "[28.5,28]", "[\"28\",28]",
                           "[1000000,1000000]", "[18446744073709551615,1]"})
    refuse("\"size\" is", fmt::format(R"({{"resize":"direct","size":{}}})", size));
  refuse("\"resize_to\" is missing", R"({"resize":"shorter_side_then_center_crop","size":[28,28]})");
  refuse("\"resize_to\" is 0", R"({"resize":"shorter_side_then_center_crop","size":[28,28],"resize_to":0})");
  refuse("\"mode\" is \"CMYK\"", with(R"(,"mode":"CMYK")"));
  refuse("\"channel_order\" is \"RBG\"", with(R"(,"channel_order":"RBG")"));
  refuse("\"channel_order\" is \"BGR\"", with(R"(,"channel_order":"BGR","mode":"L")"));
  refuse("\"channel_order\" is \"gray\"", with(R"(,"channel_order":"gray","mode":"RGB")"));
  refuse("\"scale\" is 0", with(R"(,"scale":0)"));
  refuse("\"scale\" is \"1\"", with(R"(,"scale":"1")"));
  refuse("\"mean\" is [1]", with(R"(,"mean":[1])"));
  refuse("\"mean\" is [1,2,3]", with(R"(,"mean":[1,2,3],"mode":"L")"));
  refuse("\"mean\" is [1,2,null]", with(R"(,"mean":[1,2,null])"));
  refuse("\"std\" is [1,0,1]", with(R"(,"std":[1,0,1])"));
  refuse("\"labels\" is 5", with(R"(,"labels":5)"));
  refuse("\"output\" is []", with(R"(,"output":[])"));
  refuse("\"output_is_probability\" is 1", with(R"(,"output_is_probability":1)"));
}

TEST(BadLabels, Refused) {
  const TempFolder t;
  expect_error("No such file", [&] { load_labels(t / "missing"); });
  expect_error("no labels", [&] { load_labels(t.put("x", " \n\n")); });
  expect_error("line 2", [&] { load_labels(t.put("x", "a\n\nb\n")); });
  expect_error("line 1", [&] { load_labels(t.put("x", ", b\n")); });
  expect_error("not a text", [&] { load_labels(t.put("x", std::string("a\0b", 3))); });
  expect_error("not a text", [&] { load_labels(t.put("x", "a\x1b[31mb")); });
  expect_error("not a text", [&] { load_labels(t.put("x", "caf\xe9")); });
  expect_error("inside line 2", [&] { load_labels(t.put("x", "cat\r\n\rdog\r\n")); });
  expect_error("inside line 1", [&] { load_labels(t.put("x", "cat\rdog\r")); });
}

// ---- data sets

TEST(BadDataset, Idx) {
  const TempFolder t;
  const std::string images = big_endian(0x803) + big_endian(2) + big_endian(2) + big_endian(1) + "abcd";
  const std::string labels = big_endian(0x801) + big_endian(2) + "\1\2";
  const auto refuse = [&](const std::string& part, const std::string& x, const std::string& y) {
    SCOPED_TRACE(x.substr(0, 30));
    t.put("y-labels-idx1-ubyte", y);
    expect_error(part, [&] { open_dataset(t.put("y-images-idx3-ubyte", x)); });
  };
  t.put("y-labels-idx1-ubyte", labels);
  EXPECT_EQ(open_dataset(t.put("y-images-idx3-ubyte", images)).size(), 2);

  refuse("3 of 4 bytes", images.substr(0, 19), labels);
  refuse("more than the 4 bytes", images + "e", labels);
  refuse("not an idx file", images.substr(0, 10), labels);
  refuse("not an idx file", big_endian(0x802) + images.substr(4), labels);
  refuse("cannot hold", big_endian(0x803) + big_endian(0xffffffff) + big_endian(0xffffffff) + big_endian(0xffffffff),
         labels);
  refuse("cannot hold", big_endian(0x803) + big_endian(60000) + images.substr(8), labels);
  // 200 bytes out of 20: only gzip unfolds.
  refuse("cannot hold", big_endian(0x803) + big_endian(100) + images.substr(8), labels);
  refuse("cannot hold", big_endian(0x803) + big_endian(0) + images.substr(8), labels);
  refuse("2 images", images, big_endian(0x801) + big_endian(3) + "\1\2\3");
  refuse("1 of 2 bytes", images, labels.substr(0, 9));
  refuse("not an idx file", images, images);
  expect_error("holds labels", [&] { open_dataset(t / "y-labels-idx1-ubyte"); });
  fs::remove(t / "y-labels-idx1-ubyte");
  expect_error("no labels file", [&] { open_dataset(t / "y-images-idx3-ubyte"); });
  t.put("z-images-idx3-ubyte", images);
  expect_error("several", [&] { open_dataset(t.path()); });

  // Gzip: cut, damaged, and unfolding to more than it says.
  const std::string path = t / "g-images-idx3-ubyte.gz";
  t.put("g-labels-idx1-ubyte", labels);
  const gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, images.data(), unsigned(images.size()));
  gzclose(file);
  const std::string good = read_file(path, 1 << 20);
  EXPECT_EQ(open_dataset(path).size(), 2);
  for (size_t n = 2; n < good.size(); ++n) {
    SCOPED_TRACE(fmt::format("gzip cut to {} of {} bytes", n, good.size()));
    t.put("g-images-idx3-ubyte.gz", good.substr(0, n));
    expect_error("g-images", [&] { open_dataset(path); });
  }
  std::string bad = good;
  bad[bad.size() - 6] = char(bad[bad.size() - 6] ^ 1);  // its checksum
  t.put("g-images-idx3-ubyte.gz", bad);
  expect_error("cannot be unpacked", [&] { open_dataset(path); });
}

TEST(BadDataset, CifarFiles) {
  const TempFolder t;
  const auto records = [](int labels, std::vector<int> numbers) {
    std::string bytes;
    for (const int n : numbers) {
      bytes += std::string(size_t(labels - 1), '\1') + char(n);
      for (int c = 0; c < 3; ++c) bytes += std::string(1024, char(n + 100 * c));
    }
    return bytes;
  };
  const std::string ten = t.put("data_batch_1.bin", records(1, {3, 9}));
  EXPECT_TRUE(is_dataset(ten));
  Dataset data = open_dataset(ten);
  ASSERT_EQ(data.size(), 2);
  EXPECT_EQ(data.classes[9], "truck");
  EXPECT_EQ(data.label(0), 3);
  const Image image = data.image(1);
  EXPECT_EQ(image.width, 32);
  for (int c = 0; c < 3; ++c) EXPECT_EQ(image.at(31, 7)[c], uint8_t(9 + 100 * c));
  data.append(open_dataset(t.put("data_batch_2.bin", records(1, {0, 1, 2})) + "[1:]"));
  EXPECT_EQ(data.size(), 4);
  EXPECT_EQ(data.label(2), 1);
  EXPECT_EQ(data.path(3), t / "data_batch_2.bin[2]");
  EXPECT_EQ(data.number(3), 2);
  expect_error("label 10 of image 1", [&] { open_dataset(t.put("x.bin", records(1, {1, 10}))); });
  expect_error("not a data set", [&] { open_dataset(t.put("x.bin", records(1, {1}) + "??")); });
  const Dataset hundred = open_dataset(t.put("train.bin", records(2, {99})));
  EXPECT_EQ(hundred.label(0), 99);
  EXPECT_EQ(hundred.classes[99], "99");
  expect_error("other classes", [&] { data.append(hundred); });
  expect_error("label 99", [&] {
    t.put("fine_label_names.txt", "apple\nbear\n");
    open_dataset(t / "train.bin");
  });
  t.put("test_batch.bin", records(1, {5}));
  EXPECT_EQ(open_dataset(t.path()).label(0), 5) << "of a folder";
}

TEST(BadDataset, MosaicAndFolders) {
  const TempFolder t;
  expect_error("No such file", [&] { open_dataset(t / "missing"); });
  expect_error("no sub-folders", [&] { open_dataset(t.path()); });
  expect_error("not a data set", [&] { open_dataset(t.put("x.txt", "text")); });
  make_directories(t / "set/a");
  expect_error("no images", [&] { open_dataset(t / "set"); });
  make_directories(t / "numbers/1");
  make_directories(t / "numbers/01");
  expect_error("the same class", [&] { open_dataset(t / "numbers"); });
  make_directories(t / "large/999999999");
  expect_error("class 999999999", [&] { open_dataset(t / "large"); });

  write_png(t / "m_001.png", {1280, 32, 3, std::vector<uint8_t>(1280 * 32 * 3)});
  expect_error("0 labels files", [&] { open_dataset(t / "m_001.png"); });
  t.put("m_labels.u8", std::string(1039, '\0'));
  expect_error("holds 1039 labels", [&] { open_dataset(t / "m_001.png"); });
  t.put("m_labels.u8", std::string(1039, '\0') + '\x0a');
  expect_error("label 10 of image 1039", [&] { open_dataset(t / "m_001.png"); });
  t.put("m_labels.u8", std::string(1040, '\0'));
  EXPECT_EQ(open_dataset(t / "m_001.png").size(), 40);
  t.put("m_labels_2.u8", std::string(1040, '\0'));
  expect_error("2 labels files", [&] { open_dataset(t / "m_001.png"); });
  fs::remove(t / "m_labels_2.u8");
  write_png(t / "m_000.png", {1280, 33, 3, std::vector<uint8_t>(1280 * 33 * 3)});
  expect_error("is no mosaic", [&] { open_dataset(t / "m_000.png"); });
}

}  // namespace
}  // namespace switchback
