// Files in and out: what is read right. bad_input_test.cpp has what must be refused.
#include <signal.h>
#include <webp/encode.h>
#include <zlib.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "engine/files/dataset.h"
#include "engine/files/files.h"
#include "engine/files/image.h"
#include "engine/files/labels.h"
#include "engine/files/npy.h"
#include "engine/files/safetensors.h"
#include "tests/support/temp_folder.h"

namespace switchback {
namespace {

using test::TempFolder;
using test::expect_error;
namespace fs = std::filesystem;

const std::string kSource = SWITCHBACK_SOURCE_DIR;
const std::string kData = kSource + "/../shared/data";

uint32_t crc(const std::vector<uint8_t>& bytes) { return uint32_t(crc32(0, bytes.data(), uInt(bytes.size()))); }

Tensor counting(Dims dims) {
  Tensor t(std::move(dims));
  for (int64_t i = 0; i < t.count(); ++i) t[i] = float(i) * 0.5f - 3;
  return t;
}

Image pattern(int width, int height, int channels) {
  Image out{width, height, channels, std::vector<uint8_t>(size_t(width * height * channels))};
  for (size_t i = 0; i < out.pixels.size(); ++i) out.pixels[i] = uint8_t(i * 37 + i / 11);
  return out;
}

void expect_same(const Tensor& a, const Tensor& b, double tolerance = 0) {
  ASSERT_EQ(a.dims(), b.dims());
  for (int64_t i = 0; i < a.count(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << "element " << i;
}

// ---- files

TEST(Files, WriteReadMap) {
  const TempFolder t;
  make_directories(t / "a/b/c");
  make_directories(t / "a/b/c");
  const std::string path = t / "a/b/c/x";
  write_file_atomically(path, std::string_view("first"));
  write_file_atomically(path, std::string_view("second"));
  EXPECT_EQ(read_file(path, 6), "second");
  EXPECT_EQ(file_size(path), 6);
  const MappedFile map(path);
  ASSERT_EQ(map.bytes().size(), 6u);
  EXPECT_EQ(std::memcmp(map.bytes().data(), "second", 6), 0);
  EXPECT_TRUE(MappedFile(t.put("empty", "")).bytes().empty());
  EXPECT_EQ(t.files(), 5u) << "temporary files were left";      // a, b, c, x, empty
  EXPECT_FALSE(read_file("/proc/self/stat", 1 << 16).empty());  // says it has 0 bytes
}

TEST(Files, NothingBeforeCommit) {
  const TempFolder t;
  {
    OutputFile file(t / "x");
    file.write("half");
    EXPECT_FALSE(fs::exists(t / "x"));
    EXPECT_EQ(t.files(), 1u);
  }
  EXPECT_EQ(t.files(), 0u);
}

TEST(Files, StagedAllOrNone) {
  const TempFolder t;
  t.put("old", "old");
  {
    StagedFiles staged;
    staged.add(t / "old", std::string_view("new"));
    staged.add(t / "other", std::vector<uint8_t>{1, 2});
    EXPECT_EQ(staged.paths(), (std::vector<std::string>{t / "old", t / "other"}));
    EXPECT_FALSE(fs::exists(t / "other"));
  }
  EXPECT_EQ(t.files(), 1u);
  EXPECT_EQ(read_file(t / "old", 10), "old");
  StagedFiles staged;
  staged.add(t / "old", std::string_view("new"));
  staged.add(t / "streamed").write("bytes");
  staged.commit();
  EXPECT_EQ(read_file(t / "old", 10), "new");
  EXPECT_EQ(read_file(t / "streamed", 10), "bytes");
  EXPECT_EQ(t.files(), 2u);
}

TEST(Files, SignalRemovesTemporaries) {
  const TempFolder t;
  EXPECT_EXIT(
      {
        remove_temporaries_on_signals();
        OutputFile a(t / "a");
        OutputFile b(t / "b");
        a.write("x");
        b.commit();
        raise(SIGTERM);
      },
      testing::KilledBySignal(SIGTERM), "");
  EXPECT_EQ(t.files(), 1u);
  EXPECT_TRUE(fs::exists(t / "b"));
}

// ---- safetensors

TEST(SafetensorsFile, RoundTrip) {
  const TempFolder t;
  const Tensor w = counting({2, 3, 1, 2});
  const std::vector<uint8_t> gates{0, 1, 2, 1, 0};
  const std::vector<int16_t> switches{300, -1};
  const std::vector<float> none;
  write_safetensors(t / "x.safetensors",
                    {{"gate", {1, 5}, gates}, {"switch", {2, 1}, switches}, {"w", w}, {"empty", {0, 4}, none}},
                    {{"format", "pt"}, {"b", "ü\n\""}});
  const Safetensors in(t / "x.safetensors");
  EXPECT_EQ(in.names(), (std::vector<std::string>{"empty", "gate", "switch", "w"}));
  EXPECT_TRUE(in.has("w"));
  EXPECT_FALSE(in.has("v"));
  EXPECT_EQ(in.dtype("w"), "F32");
  EXPECT_EQ(in.dtype("gate"), "U8");
  EXPECT_EQ(in.dtype("switch"), "I16");
  EXPECT_EQ(in.dims("gate"), (Dims{1, 5}));
  expect_same(in.load("w"), w);
  EXPECT_EQ(in.load("empty").count(), 0);
  EXPECT_EQ(in.load_ints("gate"), (std::vector<int64_t>{0, 1, 2, 1, 0}));
  EXPECT_EQ(in.load_ints("switch"), (std::vector<int64_t>{300, -1}));
  EXPECT_EQ(in.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"b", "ü\n\""}}));
  EXPECT_EQ(t.files(), 1u);
  // Float data lie aligned in the file.
  EXPECT_EQ(reinterpret_cast<uintptr_t>(in.bytes("w").data()) % 4, 0u);
}

std::string safetensors_of(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + std::string(header) + std::string(data);
}

TEST(SafetensorsFile, Types) {
  const TempFolder t;
  const auto one = [&](const char* dtype, std::string_view bytes, int count) {
    return t.put("x", safetensors_of(fmt::format(R"({{"a":{{"dtype":"{}","shape":[{}],"data_offsets":[0,{}]}}}})",
                                                 dtype, count, bytes.size()),
                                     bytes));
  };
  const auto bytes_of = [](const auto& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0]));
  };
  // 1, -2, largest, smallest subnormal, -largest subnormal, infinity, -0
  const std::vector<uint16_t> f16{0x3c00, 0xc000, 0x7bff, 0x0001, 0x83ff, 0x7c00, 0x8000};
  const float f16_values[] = {1, -2, 65504, 0x1p-24f, -1023 * 0x1p-24f, INFINITY, 0};
  const Tensor a = Safetensors(one("F16", bytes_of(f16), 7)).load("a");
  for (int i = 0; i < 7; ++i) EXPECT_EQ(a[i], f16_values[i]) << i;
  EXPECT_TRUE(std::signbit(a[6]));
  const std::vector<uint16_t> bf{0x3f80, 0xc049, 0x7f80};
  const Tensor b = Safetensors(one("BF16", bytes_of(bf), 3)).load("a");
  EXPECT_EQ(b[0], 1);
  EXPECT_EQ(b[1], -3.140625f);
  EXPECT_EQ(b[2], INFINITY);
  const std::vector<double> f64{0.1, -1e300};
  const Tensor d = Safetensors(one("F64", bytes_of(f64), 2)).load("a");
  EXPECT_EQ(d[0], 0.1f);
  EXPECT_EQ(d[1], -INFINITY);
  const auto ints = [&](const char* dtype, const auto& values) {
    const std::vector<int64_t> want(values.begin(), values.end());
    EXPECT_EQ(Safetensors(one(dtype, bytes_of(values), int(values.size()))).load_ints("a"), want) << dtype;
  };
  ints("U8", std::vector<uint8_t>{0, 255});
  ints("BOOL", std::vector<uint8_t>{0, 1});
  ints("I8", std::vector<int8_t>{-128, 127});
  ints("U16", std::vector<uint16_t>{0, 65535});
  ints("I16", std::vector<int16_t>{-32768, 32767});
  ints("U32", std::vector<uint32_t>{0, 0xffffffffu});
  ints("I32", std::vector<int32_t>{INT32_MIN, INT32_MAX});
  ints("I64", std::vector<int64_t>{INT64_MIN, INT64_MAX});
  ints("U64", std::vector<uint64_t>{0, uint64_t(INT64_MAX)});
  // A scalar, at an odd place.
  const std::string odd = safetensors_of(
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"s":{"dtype":"F32","shape":[],"data_offsets":[1,5]}}  )",
      std::string_view("\x07\x00\x00\x80\x3f", 5));
  const Tensor s = Safetensors(t.put("odd", odd)).load("s");
  EXPECT_EQ(s.dims(), Dims{1});
  EXPECT_EQ(s[0], 1);
}

// ---- npy

TEST(Npy, RoundTripAndForm) {
  const TempFolder t;
  for (const Dims& dims : {Dims{5}, Dims{2, 3}, Dims{1, 2, 3, 4}, Dims{1, 1, 2, 1, 3, 2}}) {
    const Tensor x = counting(dims);
    write_npy(t / "x.npy", x);
    expect_same(read_npy(t / "x.npy"), x);
    expect_same(read_npy(t / "x.npy", {int(dims.size())}), x);
    const std::string bytes = read_file(t / "x.npy", 1 << 20);
    EXPECT_EQ((bytes.size() - size_t(x.count()) * 4) % 64, 0u);
    EXPECT_EQ(bytes[127], '\n');
  }
  const std::vector<uint8_t> one = npy_bytes(counting({3}));
  const std::string head(one.begin(), one.begin() + 69);
  EXPECT_EQ(
      head,
      std::string("\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 67) + "  ");
}

TEST(Npy, Versions) {
  const TempFolder t;
  const float data[] = {1, 2};
  const std::string tail(reinterpret_cast<const char*>(data), 8);
  const std::string dict = "{\"shape\": (2L, 1), 'fortran_order':False,'descr' : '<f4'}\n";
  for (const char version : {'\x01', '\x02', '\x03'}) {
    std::string file = std::string("\x93NUMPY") + version + '\0' + char(dict.size()) + '\0';
    if (version > 1) file += std::string(2, '\0');
    const Tensor x = read_npy(t.put("x.npy", file + dict + tail));
    EXPECT_EQ(x.dims(), (Dims{2, 1}));
    EXPECT_EQ(x[1], 2);
  }
}

// ---- images

TEST(ImageFile, PngRoundTrip) {
  const TempFolder t;
  for (const auto& [w, h] : {std::pair{1, 1}, {7, 5}, {40, 33}}) {
    const Image rgb = pattern(w, h, 3), grey = pattern(w, h, 1);
    write_png(t / "x.png", rgb);
    EXPECT_EQ(load_image(t / "x.png"), rgb);
    write_png(t / "x.png", grey);
    EXPECT_EQ(load_image(t / "x.png"), to_rgb(grey));
  }
  EXPECT_EQ(t.files(), 1u);
}

TEST(ImageFile, PngTexts) {
  const TempFolder t;
  const Image rgb = pattern(5, 3, 3);
  const std::vector<uint8_t> plain = png_bytes(rgb), with = png_bytes(rgb, {{"Software", "a"}, {"key", "text"}});
  EXPECT_EQ(with.size(), plain.size() + 2 * 12 + 10 + 8);
  const std::string text(with.begin(), with.end());
  EXPECT_EQ(text.substr(33, 22), std::string("\0\0\0\x0atEXtSoftware\0a", 18) + text.substr(51, 4));
  EXPECT_EQ(load_image(t.put("x.png", text)), rgb);
}

TEST(ImageFile, WebP) {
  const TempFolder t;
  const Image rgb = pattern(37, 21, 3);
  uint8_t* bytes = nullptr;
  const size_t size = WebPEncodeLosslessRGB(rgb.pixels.data(), rgb.width, rgb.height, rgb.width * 3, &bytes);
  const std::string file(reinterpret_cast<const char*>(bytes), size);
  WebPFree(bytes);
  EXPECT_EQ(load_image(t.put("x.webp", file)), rgb);
  for (size_t n = 0; n < size; ++n)
    test::expect_error("x.webp", [&] { load_image(t.put("x.webp", file.substr(0, n))); });
  test::expect_error("cut off", [&] { load_image(t.put("x.webp", file.substr(0, size / 2))); });
}

TEST(ImageFile, OtherFormatsAreNamed) {
  const TempFolder t;
  for (const auto& [start, name] : {std::pair{"GIF89a", "a GIF"}, {"II*", "a TIFF"}})
    test::expect_error(name, [&] { load_image(t.put("x", std::string(start) + std::string(100, '\0'))); });
}

// Orientations as PIL's ImageOps.exif_transpose turns them.
TEST(ImageFile, ExifOrientation) {
  const TempFolder t;
  Image image{3, 2, 3, {}};
  for (uint8_t i = 0; i < 6; ++i) image.pixels.insert(image.pixels.end(), 3, uint8_t(10 * i));  // 0 1 2 / 3 4 5
  const std::string turned[] = {"", "012345", "210543", "543210", "345012", "031425", "304152", "524130", "251403"};
  const std::vector<uint8_t> plain = png_bytes(image);
  for (int orientation = 0; orientation <= 9; ++orientation)
    for (const bool little : {true, false}) {
      const std::string o(1, char(orientation)), zero(1, '\0');
      const std::string exif =
          little ? std::string("II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", 18) + o + std::string(7, '\0')
                 : std::string("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01", 18) + zero + o + std::string(6, '\0');
      std::string png(plain.begin(), plain.end());
      png.insert(33, std::string{0, 0, 0, char(exif.size())} + "eXIf" + exif + "crc?");  // stb looks at no checksum
      t.put("x.png", png);
      EXPECT_EQ(load_image(t / "x.png"), image) << "not asked for";
      const Image up = load_image(t / "x.png", true);
      const std::string& order = turned[orientation >= 1 && orientation <= 8 ? orientation : 1];
      std::string got;
      for (size_t i = 0; i < up.pixels.size(); i += 3) got += char('0' + up.pixels[i] / 10);
      EXPECT_EQ(got, order) << orientation;
      EXPECT_EQ(up.width, orientation >= 5 && orientation <= 8 ? 2 : 3) << orientation;
    }
  for (size_t cut = 0; cut < 26; ++cut) {  // whatever the block holds
    std::string png(plain.begin(), plain.end());
    const std::string exif =
        std::string("II*\0\xff\xff\xff\xff\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0", 26).substr(0, cut);
    png.insert(33, std::string{0, 0, 0, char(exif.size())} + "eXIf" + exif + "crc?");
    EXPECT_EQ(load_image(t.put("x.png", png), true), image);
  }
}

TEST(ImageFile, Pnm) {
  const TempFolder t;
  const Image rgb = load_image(t.put("x.ppm", std::string("P6\n# made by hand\n2 1\n255\n\x01\x02\x03\x04\x05\x06")));
  EXPECT_EQ(rgb, (Image{2, 1, 3, {1, 2, 3, 4, 5, 6}}));
  EXPECT_EQ(load_image(t.put("x.pgm", "P5 1 2 255 ab")), (Image{1, 2, 3, {'a', 'a', 'a', 'b', 'b', 'b'}}));
}

TEST(ImageFile, BmpRowsArePaddedAndBottomUp) {
  const TempFolder t;
  std::string bmp("BM\x4a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0\x02\0\0\0\x01\0\x18\0", 30);
  bmp += std::string(24, '\0');
  bmp += std::string("\x01\x02\x03\x04\x05\x06\0\0\x07\x08\x09\x0a\x0b\x0c\0\0", 16);
  EXPECT_EQ(load_image(t.put("x.bmp", bmp)), (Image{2, 2, 3, {9, 8, 7, 12, 11, 10, 3, 2, 1, 6, 5, 4}}));
}

// Against Pillow and torchvision, by the golden file of tests/golden/make_resize.py.
struct Golden {
  Safetensors file{kSource + "/tests/golden/resize.safetensors"};
  Image image(const std::string& name) const {
    const Dims& d = file.dims(name);
    Image out{int(d[1]), int(d[0]), d.size() > 2 ? int(d[2]) : 1, {}};
    for (const int64_t v : file.load_ints(name)) out.pixels.push_back(uint8_t(v));
    return out;
  }
};

TEST(Resize, BitEqualToPillow) {
  const Golden golden;
  int cases = 0;
  for (const std::string& name : golden.file.names()) {
    const size_t dot = name.find('.'), x = name.rfind('x');
    if (dot == std::string::npos || name.starts_with("imagenet")) continue;
    const int h = std::stoi(name.substr(dot + 1)), w = std::stoi(name.substr(x + 1));
    const Image source = golden.image(name.substr(0, dot)), want = golden.image(name);
    const Image got = resize_bilinear(source, w, h);
    EXPECT_EQ(got, want) << name;
    ++cases;
    // A part is that part of the whole.
    const Crop box{w / 3, h / 4, std::max(1, w / 2), std::max(1, h / 2)};
    const Image part = resize_bilinear(source, w, h, box);
    ASSERT_EQ(part.width, box.width);
    ASSERT_EQ(part.height, box.height);
    const int c = part.channels;
    for (int r = 0; r < part.height; ++r)
      for (int i = 0; i < part.width * c; ++i)
        ASSERT_EQ(part.pixels[size_t(r * part.width * c + i)],
                  want.pixels[size_t(((box.top + r) * w + box.left) * c + i)])
            << name << " row " << r << " value " << i;
  }
  EXPECT_EQ(cases, 12);
  EXPECT_EQ(resize_bilinear(golden.image("noise"), 37, 23), golden.image("noise"));
}

TEST(Preprocessing, AsTorchvision) {
  const Golden golden;
  EXPECT_EQ(to_grey(golden.image("noise")), golden.image("grey_of_noise"));
  int cases = 0;
  for (const std::string& name : golden.file.names()) {
    if (!name.starts_with("imagenet") || name.ends_with(".sizes")) continue;
    const std::vector<int64_t> sizes = golden.file.load_ints(name + ".sizes");
    Preprocess how = imagenet_preprocess();
    how.resize_to = sizes[0];
    how.size = {int(sizes[1]), int(sizes[2])};
    const Image source = golden.image(name.substr(9, name.rfind('.') - 9));
    SCOPED_TRACE(name);
    // The two differ only in float32's roundings: |value| < 3, four operations.
    expect_same(preprocess(source, how), golden.file.load(name), 3 * 4 * 0x1p-24);
    ++cases;
  }
  EXPECT_EQ(cases, 10);
}

TEST(Preprocessing, PhotosAsTorchvision) {
  struct Row {
    const char* name;
    uint32_t crop, grey;
  };
  // Lossless files, so that the decoded pixels are the same.
  const Row rows[] = {{"astronaut.png", 0x814c09c6u, 0x867730d5u}, {"cat_dog.png", 0x3ac3968du, 0x95e5f1a0u},
                      {"chelsea.png", 0x8afbe349u, 0xb75a31beu},   {"snake.png", 0xd3d9590au, 0x283d3261u},
                      {"spider.png", 0xeafef0bdu, 0xf72084fau},    {"bird.bmp", 0x626d4ea4u, 0x6420d837u}};
  if (!fs::exists(kData + "/photos")) GTEST_SKIP() << "shared/data is not here";
  for (const Row& row : rows) {
    const Image image = load_image(kData + "/photos/" + row.name);
    EXPECT_EQ(crc(preprocessed_picture(image, imagenet_preprocess()).pixels), row.crop) << row.name;
    EXPECT_EQ(crc(preprocessed_picture(image, lenet_preprocess()).pixels), row.grey) << row.name;
  }
  const Image jpeg = load_image(kData + "/photos/cat.jpg");
  EXPECT_EQ(jpeg.width, 480);
  EXPECT_EQ(jpeg.height, 360);
}

TEST(Preprocessing, OrdersAndGrey) {
  const Image image{2, 1, 3, {10, 20, 30, 40, 50, 60}};
  Preprocess how;
  how.resize = Preprocess::Resize::direct;
  how.size = {1, 2};
  how.scale = 2;
  how.mean = {1, 2, 3};
  how.std = {1, 2, 4};
  how.order = ChannelOrder::bgr;
  const Tensor bgr = preprocess(image, how);
  const float want[] = {59, 119, 19, 49, 4.25f, 19.25f};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(bgr[i], want[i]) << i;
  how.order = ChannelOrder::grey;
  how.mean = how.std = {};
  const Tensor grey = preprocess(image, how);
  EXPECT_EQ(grey.dims(), (Dims{1, 1, 1, 2}));
  EXPECT_EQ(grey[0], 36);  // 2 * round(0.299 * 10 + 0.587 * 20 + 0.114 * 30)
  const Tensor lenet = preprocess(Image{28, 28, 1, std::vector<uint8_t>(784, 255)}, lenet_preprocess());
  EXPECT_NEAR(lenet[5], (1 - 0.1307) / 0.3081, 1e-6);
}

// Only the crop is computed, so that a side of 10^8 after resizing costs nothing.
TEST(Preprocessing, VeryLongImage) {
  const Image image{400'000, 1, 1, std::vector<uint8_t>(400'000, 77)};
  const Image crop = preprocessed_picture(image, imagenet_preprocess());
  EXPECT_EQ(crop, (Image{224, 224, 3, std::vector<uint8_t>(224 * 224 * 3, 77)}));
}

TEST(Preprocessing, FromJson) {
  const TempFolder t;
  const Preprocess a = load_preprocess(t.put("a.json", R"({"resize": "shorter_side_then_center_crop", "resize_to": 146,
      "size": [128, 130], "channel_order": "BGR", "scale": 0.5, "mean": [1, 2.5, 3], "std": [1, 1, -4], "note": {"x": []},
      "labels": "names.txt", "output": "prob", "output_is_probability": true})"));
  EXPECT_EQ(a.resize, Preprocess::Resize::shorter_side_then_center_crop);
  EXPECT_EQ(a.resize_to, 146);
  EXPECT_EQ(a.size, (std::array<int, 2>{128, 130}));
  EXPECT_EQ(a.order, ChannelOrder::bgr);
  EXPECT_EQ(a.scale, 0.5);
  EXPECT_EQ(a.mean, (std::vector<double>{1, 2.5, 3}));
  EXPECT_EQ(a.std, (std::vector<double>{1, 1, -4}));
  EXPECT_EQ(a.labels, t / "names.txt");
  EXPECT_EQ(a.output, "prob");
  EXPECT_TRUE(a.output_is_probability);
  const Preprocess b =
      load_preprocess(t.put("b.json", R"({"resize":"direct","size":[28,28],"mode":"L","labels":null})"));
  EXPECT_EQ(b.resize, Preprocess::Resize::direct);
  EXPECT_EQ(b.order, ChannelOrder::grey);
  EXPECT_EQ(b.scale, 1);
  EXPECT_EQ(b.labels, "");
  EXPECT_FALSE(b.output_is_probability);
}

TEST(Preprocessing, JsonOfTheModels) {
  if (!fs::exists(kData + "/models")) GTEST_SKIP() << "shared/data is not here";
  int files = 0;
  for (const auto& entry : fs::directory_iterator(kData + "/models")) {
    if (entry.path().extension() != ".json") continue;
    const Preprocess p = load_preprocess(entry.path().string());
    EXPECT_EQ(int(p.mean.size()), p.channels()) << entry.path();
    if (!p.labels.empty()) {
      EXPECT_GE(load_labels(p.labels).size(), 10u) << entry.path();
    }
    ++files;
  }
  EXPECT_GE(files, 10);
}

// ---- labels

TEST(Labels, Forms) {
  const TempFolder t;
  const std::vector<std::string> want{"tench", "great white shark", "nothing", "né"};
  EXPECT_EQ(load_labels(t.put("a",
                              "\xef\xbb\xbfn01440764 tench, Tinca tinca\r\nn01484850 great white shark, man-eater\n"
                              "nothing\n né \n\n")),
            want);
  EXPECT_EQ(load_labels(t.put("b", "background")), std::vector<std::string>{"background"});
}

// ---- data sets

std::string big_endian(uint32_t v) { return {char(v >> 24), char(v >> 16 & 255), char(v >> 8 & 255), char(v & 255)}; }
std::string idx_images(int n, int h, int w) {
  std::string out = big_endian(0x803) + big_endian(uint32_t(n)) + big_endian(uint32_t(h)) + big_endian(uint32_t(w));
  for (int i = 0; i < n * h * w; ++i) out += char(i);
  return out;
}
void put_gzip(const std::string& path, const std::string& bytes) {
  const gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(gzwrite(file, bytes.data(), unsigned(bytes.size())), int(bytes.size()));
  gzclose(file);
}

TEST(DatasetFile, IdxPlainAndGzip) {
  const TempFolder t;
  const std::string labels = big_endian(0x801) + big_endian(3) + "\x04\x01\x0c";
  const auto check = [&](const std::string& path) {
    SCOPED_TRACE(path);
    const Dataset d = open_dataset(path);
    ASSERT_EQ(d.size(), 3);
    EXPECT_EQ(d.label(0), 4);
    EXPECT_EQ(d.label(2), 12);
    EXPECT_EQ(d.classes.size(), 13u);
    EXPECT_EQ(d.classes[12], "12");
    EXPECT_EQ(d.image(1), (Image{3, 2, 1, {6, 7, 8, 9, 10, 11}}));
    EXPECT_TRUE(d.path(1).ends_with("[1]")) << d.path(1);
  };
  t.put("train-images-idx3-ubyte", idx_images(3, 2, 3));
  t.put("train-labels-idx1-ubyte", labels);
  check(t / "train-images-idx3-ubyte");
  check(t.path());
  put_gzip(t / "t10k-images.idx3-ubyte.gz", idx_images(3, 2, 3));
  t.put("t10k-labels.idx1-ubyte", labels);  // plain beside gzipped
  check(t / "t10k-images.idx3-ubyte.gz");
  EXPECT_NE(open_dataset(t.path()).path(0).find("t10k"), std::string::npos) << "t10k is preferred";
}

TEST(DatasetFile, FolderOfFolders) {
  const TempFolder t;
  const auto image = [&](const std::string& name, uint8_t value) {
    make_directories(fs::path(t / name).parent_path().string());
    write_png(t / name, {1, 1, 3, {value, value, value}});
  };
  image("set/b_dog/2.png", 2);
  image("set/b_dog/1.PNG", 1);
  image("set/a_cat/9.png", 9);
  image("set/.hidden/9.png", 9);
  t.put("set/a_cat/readme.txt", "no image");
  t.put("set/readme.txt", "no class");
  const Dataset d = open_dataset(t / "set");
  EXPECT_EQ(d.classes, (std::vector<std::string>{"a_cat", "b_dog"}));
  ASSERT_EQ(d.size(), 3);
  EXPECT_EQ(d.label(0), 0);
  EXPECT_EQ(d.image(0).pixels[0], 9);
  EXPECT_EQ(d.label(1), 1);
  EXPECT_EQ(d.image(1).pixels[0], 1);
  EXPECT_EQ(d.path(2), t / "set/b_dog/2.png");
  // Numbers count as numbers, not by their sorted place.
  image("numbers/10/x.png", 10);
  image("numbers/2/x.png", 2);
  const Dataset n = open_dataset(t / "numbers");
  ASSERT_EQ(n.size(), 2);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(n.label(i), n.image(i).pixels[0]);
  EXPECT_EQ(n.classes.size(), 11u);
}

TEST(DatasetFile, PlainFolderHasNoLabels) {
  const TempFolder t;
  for (uint8_t value : {1, 2}) write_png(t / fmt::format("{}.png", value), {1, 1, 3, {value, value, value}});
  t.put("readme.txt", "no image");
  Dataset d = open_dataset(t.path());
  ASSERT_EQ(d.size(), 2);
  EXPECT_FALSE(d.labelled());
  EXPECT_EQ(d.label(1), -1);
  EXPECT_EQ(d.image(1).pixels[0], 2);
  EXPECT_EQ(open_dataset(t.path() + "[1:]").path(0), t / "2.png");
  d.join_classes();
  EXPECT_TRUE(d.labelled());
  EXPECT_EQ(d.label(1), 0);
}

// An archive of files, as POSIX has it; `long_names`: by GNU's way.
std::string tar_of(const std::vector<std::pair<std::string, std::string>>& files, bool long_names = false) {
  std::string all;
  const auto add = [&](const std::string& name, const std::string& data, char kind) {
    std::string head(512, '\0');
    std::copy_n(name.begin(), std::min<size_t>(name.size(), 100), head.begin());
    const std::string size = fmt::format("{:011o}", data.size());
    std::copy(size.begin(), size.end(), head.begin() + 124);
    std::fill_n(head.begin() + 148, 8, ' ');
    head[156] = kind;
    std::copy_n("ustar\00000", 8, head.begin() + 257);
    int sum = 0;
    for (const char c : head) sum += uint8_t(c);
    const std::string text = fmt::format("{:06o}", sum);
    std::copy(text.begin(), text.end(), head.begin() + 148);
    head[154] = '\0';
    all += head + data + std::string((512 - data.size() % 512) % 512, '\0');
  };
  for (const auto& [name, data] : files) {
    if (long_names) add("././@LongLink", name + std::string(1, '\0'), 'L');
    add(long_names ? "short" : name, data, name.ends_with("/") ? '5' : '0');
  }
  return all + std::string(1024, '\0');
}

TEST(DatasetFile, TarOfWebDataset) {
  const TempFolder t;
  const auto png = [](uint8_t value) {
    const std::vector<uint8_t> bytes = png_bytes({1, 1, 3, {value, value, value}});
    return std::string(bytes.begin(), bytes.end());
  };
  const std::string first = t.put("a.tar", tar_of({{"x/", ""}, {"x/00.png", png(7)}, {"x/00.cls", "3\n"}, {"x/01.json", R"({"label": 1})"},
                                                   {"x/01.png", png(9)}, {"x/01.txt", "words"}}));
  const Dataset d = open_dataset(first);
  ASSERT_EQ(d.size(), 2);
  EXPECT_EQ(d.classes.size(), 4u);
  EXPECT_EQ(d.label(0), 3);
  EXPECT_EQ(d.label(1), 1);
  EXPECT_EQ(d.image(0).pixels[0], 7);
  EXPECT_EQ(d.image(1).pixels[0], 9);
  EXPECT_EQ(d.path(1), first + "/x/01.png");
  EXPECT_TRUE(is_dataset(first));
  // A folder of archives is one data set; names may be long.
  t.put("b.tar", tar_of({{std::string(150, 'n') + ".png", png(5)}, {std::string(150, 'n') + ".cls", "6"}}, true));
  const Dataset both = open_dataset(t.path());
  ASSERT_EQ(both.size(), 3);
  EXPECT_EQ(both.label(2), 6);
  EXPECT_EQ(both.classes.size(), 7u);
  EXPECT_EQ(both.image(2).pixels[0], 5);
  EXPECT_EQ(both.path(2), t / "b.tar/" + std::string(150, 'n') + ".png");
  EXPECT_EQ(open_dataset(t.path() + "[2]").label(0), 6);
  EXPECT_FALSE(open_dataset(t.put("c/c.tar", tar_of({{"1.png", png(1)}, {"2.png", png(2)}}))).labelled());

  const auto bad = [&](const std::string& bytes, const std::string& part) {
    expect_error(part, [&] { open_dataset(t.put("d/bad.tar", bytes)); });
  };
  const std::string good = read_file(first, 1 << 20);
  bad("", "is no tar archive");
  bad(std::string(2000, 'x'), "is no tar archive");
  bad(good.substr(0, 1100), "cut off");
  std::string damaged = good;
  damaged[512 + 3] ^= 1;
  bad(damaged, "is damaged at byte 512");
  bad(tar_of({{"1.txt", "words"}}), "holds no images");
  bad(tar_of({{"1.png", png(1)}, {"1.cls", "-4"}}), "-4 is no label");
  bad(tar_of({{"1.png", png(1)}, {"1.json", R"({"label": -4})"}}), "its label is not from 0");
  bad(tar_of({{"1.png", png(1)}, {"1.cls", "0"}, {"2.png", png(1)}}), "2.png: has no label, but others have one");
  expect_error("not an image", [&] { open_dataset(t.put("d/bad.tar", tar_of({{"1.png", "words"}}))).image(0); });
  // Whatever byte is wrong, it is said or read; nothing else happens.
  for (size_t at = 0; at < good.size(); at += 7) {
    std::string changed = good;
    changed[at] = char(changed[at] ^ 0x5a);
    try {
      const Dataset read = open_dataset(t.put("d/bad.tar", changed));
      for (int64_t i = 0; i < read.size(); ++i) read.image(i);
    } catch (const Error&) {
    }
  }
}

TEST(DatasetFile, Mosaic) {
  const TempFolder t;
  const Image all = pattern(1280, 64, 3);
  write_png(t / "small_001.png", all);
  std::string labels(1080, '\x03');
  labels[1000 + 41] = '\x09';
  t.put("small_labels_first1080.u8", labels);
  const Dataset d = open_dataset(t / "small_001.png");
  ASSERT_EQ(d.size(), 80);
  EXPECT_EQ(d.label(40), 3);
  EXPECT_EQ(d.label(41), 9);
  EXPECT_EQ(d.classes[9], "truck");
  const Image tile = d.image(41);  // row 1, column 1
  ASSERT_EQ(tile.width, 32);
  ASSERT_EQ(tile.channels, 3);
  for (int y = 0; y < 32; ++y)
    for (int i = 0; i < 96; ++i)
      ASSERT_EQ(tile.pixels[size_t(y * 96 + i)], all.pixels[size_t((32 + y) * 1280 * 3 + 96 + i)]) << y << " " << i;
}

// What tests/golden/make_npz.py wrote: element i of an array of images is 7 i mod 251.
TEST(DatasetFile, Npz) {
  const std::string file = std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/images.npz";
  const Dataset train = open_dataset(file + ":x_train");
  ASSERT_EQ(train.size(), 5);
  EXPECT_EQ(train.label(3), 3);
  EXPECT_EQ(train.classes, (std::vector<std::string>{"0", "1", "2", "3"}));
  EXPECT_EQ(train.path(4), file + ":x_train[4]");
  const Image image = train.image(2);
  ASSERT_EQ((std::tuple{image.width, image.height, image.channels}), (std::tuple{3, 4, 3}));
  for (int64_t i = 0; i < 36; ++i) EXPECT_EQ(image.pixels[i], (72 + i) * 7 % 251);
  const Dataset test = open_dataset(file + ":x_test[1:2]");
  ASSERT_EQ(test.size(), 1);
  EXPECT_EQ(test.label(0), 1);
  EXPECT_EQ(test.classes, train.classes) << "they are parts of one set";
  EXPECT_TRUE(is_dataset(file + ":x_test[1:2]"));
  EXPECT_EQ(dataset_stem(file + ":x_test[1:2]"), "images-x_test@1-2");

  const std::string planes = std::string(SWITCHBACK_SOURCE_DIR) + "/tests/golden/images_cifar.npz";
  const Dataset cifar = open_dataset(planes);
  ASSERT_EQ(cifar.size(), 3);
  EXPECT_EQ(cifar.label(0), 9);
  EXPECT_EQ(cifar.classes[9], "truck");
  const Image second = cifar.image(1);
  for (int64_t at = 0; at < 1024; ++at)
    for (int64_t c = 0; c < 3; ++c) EXPECT_EQ(second.pixels[at * 3 + c], (3072 + c * 1024 + at) * 7 % 251);

  expect_error("holds x_test and x_train", [&] { open_dataset(file); });
  expect_error("no images 'x_val' with labels", [&] { open_dataset(file + ":x_val"); });
  const TempFolder t;
  const std::string bytes = read_file(file, 1 << 20);
  for (const size_t length : {0, 10, 400, int(bytes.size()) - 1}) {
    SCOPED_TRACE(length);
    t.put("cut.npz", bytes.substr(0, length));
    expect_error("cut.npz", [&] { open_dataset(t / "cut.npz"); });
  }
  for (size_t i = 0; i < bytes.size(); i += 3) {  // whatever is changed: an error, or images
    std::string other = bytes;
    other[i] = char(other[i] ^ (1 << i % 8));
    t.put("other.npz", other);
    try {
      EXPECT_GT(open_dataset(t / "other.npz:x_train").image(0).pixels.size(), 0u);
    } catch (const Error&) {
    }
  }
}

TEST(DatasetFile, MnistAndCifar) {
  if (!fs::exists(kData + "/mnist")) GTEST_SKIP() << "shared/data is not here";
  const Dataset mnist = open_dataset(kData + "/mnist");
  ASSERT_EQ(mnist.size(), 10000);
  const std::vector<int> first{7, 2, 1, 0, 4, 1, 4, 9, 5, 9};
  for (int i = 0; i < 10; ++i) EXPECT_EQ(mnist.label(i), first[size_t(i)]) << i;
  EXPECT_EQ(crc(mnist.image(7).pixels), 0x621192bfu);
  EXPECT_EQ(mnist.classes.size(), 10u);
  const Dataset test = open_dataset(kData + "/cifar10/test_000.png");
  ASSERT_EQ(test.size(), 1000);
  EXPECT_EQ(test.label(123), 2);
  EXPECT_EQ(crc(test.image(123).pixels), 0xabd7a5c9u);
  EXPECT_EQ(open_dataset(kData + "/cifar10/train_002.png").label(123), 4);
}

}  // namespace
}  // namespace switchback
