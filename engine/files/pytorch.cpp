#include "engine/files/pytorch.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <utility>

#include "engine/files/zip.h"

namespace switchback {
namespace {

using Kind = PickleValue::Kind;

constexpr const char* kSaveAgain = "save it again in PyTorch: torch.save(model.state_dict(), 'weights.pth')";
constexpr const char* kWrappers[] = {"state_dict", "model_state_dict", "model", "net", "network", "weights", "params"};
constexpr size_t kLargestPickle = size_t(64) << 20;  // that of a network of 1000 tensors has 0.2 MiB

struct StorageType {
  std::string_view torch;
  const char* dtype;
};
constexpr StorageType kStorages[] = {
    {"torch.FloatStorage", "F32"}, {"torch.DoubleStorage", "F64"}, {"torch.HalfStorage", "F16"},
    {"torch.BFloat16Storage", "BF16"}, {"torch.LongStorage", "I64"}, {"torch.IntStorage", "I32"},
    {"torch.ShortStorage", "I16"}, {"torch.CharStorage", "I8"}, {"torch.ByteStorage", "U8"}, {"torch.BoolStorage", "BOOL"}};

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A record of torch.save's archive, which stores all as they are.
using Records = std::map<std::string, std::span<const std::byte>, std::less<>>;
Records records_of(std::span<const std::byte> file) {
  Records records;
  for (const ZipRecord& r : zip_records(file)) {
    if (r.deflated)
      throw Error(fmt::format("its record '{}' is compressed, which torch.save never does", printable(r.name)), kSaveAgain);
    r.check(r.packed);
    records.emplace(r.name, r.packed);
  }
  return records;
}

// --- the pickles

// "torch.FloatStorage" … of a persistent id; null where it is none.
const PickleValue* storage_type(const PickleValue& storage) {
  const auto& s = storage.items;
  const bool known = storage.is(Kind::storage) && s.size() >= 5 && s[0]->is(Kind::text) && s[0]->text == "storage" &&
                     s[1]->is(Kind::global) && s[2]->is(Kind::text) && s[4]->is(Kind::integer) && s[4]->number >= 0;
  return known ? s[1] : nullptr;
}

bool holds_tensors(const PickleValue& value) {
  if (!value.is(Kind::dict)) return false;
  for (size_t i = 0; i + 1 < value.items.size(); i += 2)
    if (value.items[i]->is(Kind::text) && value.items[i + 1]->is(Kind::tensor)) return true;
  return false;
}

std::string listed(const PickleValue& value) {
  if (value.is(Kind::unknown)) return fmt::format("an object '{}'", printable(std::string(value.text)));
  if (!value.is(Kind::dict)) return "no dict";
  std::vector<std::string> names;
  for (size_t i = 0; i < value.items.size() && names.size() < 8; i += 2)
    if (value.items[i]->is(Kind::text)) names.push_back(printable(std::string(value.items[i]->text)));
  return names.empty() ? "an empty dict" : fmt::format("{}{}", fmt::join(names, ", "), value.items.size() > 16 ? ", …" : "");
}

const PickleValue& find_state_dict(const PickleValue& root) {
  const PickleValue* value = &root;
  for (int depth = 0; depth < 4; ++depth) {
    std::vector<const PickleValue*> inner;
    for (const char* name : kWrappers)
      if (const PickleValue* found = value->find(name); found && found->is(Kind::dict)) inner.push_back(found);
    if (inner.empty()) break;
    const auto with_tensors = std::ranges::find_if(inner, [](const PickleValue* v) { return holds_tensors(*v); });
    value = with_tensors != inner.end() ? *with_tensors : inner[0];  // "model" may be a configuration
  }
  if (!holds_tensors(*value))
    throw Error(fmt::format("it holds no state dict but {}", listed(root)),
                root.is(Kind::unknown) ? "a whole model cannot be read, its weights can: torch.save(model.state_dict(), "
                                         "'weights.pth') in PyTorch" : kSaveAgain);
  return *value;
}

Dims dims_of(const PickleValue& tuple, const std::string& name) {
  Dims dims;
  const bool fits = tuple.is(Kind::tuple) && tuple.items.size() <= kMostDims;
  if (fits)
    for (const PickleValue* v : tuple.items)
      if (v->is(Kind::integer) && v->number >= 0) dims.push_back(v->number);
  if (!fits || dims.size() != tuple.items.size()) damaged_file(fmt::format("tensor '{}' has no valid sizes or strides", name));
  return dims;
}

// Where the elements of a tensor's dims and strides end, counted from its first; −1 where that overflows.
int64_t elements_spanned(const Dims& dims, const Dims& strides) {
  int64_t end = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    int64_t step;
    if (dims[i] == 0) return 0;
    if (__builtin_mul_overflow(dims[i] - 1, strides[i], &step) || __builtin_add_overflow(end, step, &end)) return -1;
  }
  return end;
}

bool contiguous(const Dims& dims, const Dims& strides) {
  int64_t step = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    if (dims[i] != 1 && strides[i] != step) return false;
    step *= dims[i];
  }
  return true;
}

}  // namespace

bool PytorchFile::is_one(std::string_view first) {
  // A safetensors file may begin like a pickle: with the length of its header, before the header's brace.
  if (first.size() >= 9 && first[8] == '{' && first.substr(4, 4) == std::string_view("\0\0\0\0", 4)) return false;
  return first.starts_with("PK\3\4") || (first.size() >= 2 && first[0] == '\x80' && first[1] >= 2 && first[1] <= 5);
}

PytorchFile::PytorchFile(const std::string& path) : StateDict(path) {
  const std::span<const std::byte> file = file_.bytes();
  std::vector<Pickle> pickles;
  Storages storages;
  const auto add = [&](const PickleValue& tensor, const std::string& name) {
    const std::string shown = printable(name);
    const PickleValue* type = storage_type(*tensor.items[0]);
    if (!type) damaged_file(fmt::format("tensor '{}' has no storage", shown));
    const auto known = std::ranges::find(kStorages, type->text, &StorageType::torch);
    if (known == std::end(kStorages)) return;  // quantised and the like: missing if it is asked for
    const auto& s = tensor.items[0]->items;
    const auto found = storages.find(s[2]->text);
    if (found == storages.end()) damaged_file(fmt::format("the data of tensor '{}' are missing", shown));
    Entry entry{known->dtype, dims_of(*tensor.items[2], shown), {}, dims_of(*tensor.items[3], shown)};
    const size_t size = size_of_type(entry.dtype);
    const int64_t there = int64_t(found->second.size() / size), count = byte_count(entry.dims, 1);
    // Before PyTorch 1.0 a storage could be a part of another: (key, first element, length).
    const PickleValue* view = s.size() > 5 && s[5]->is(Kind::tuple) && s[5]->items.size() == 3 ? s[5]->items[1] : nullptr;
    const int64_t offset = std::clamp<int64_t>(tensor.items[1]->number, -1, there) + (view ? std::clamp<int64_t>(view->number, -1, there) : 0);
    const int64_t end = elements_spanned(entry.dims, entry.strides);
    if (!tensor.items[1]->is(Kind::integer) || entry.strides.size() != entry.dims.size() || offset < 0 || end < 0 ||
        count < 0 || offset > there || end > there - offset || int64_t(s[4]->number) > there)
      damaged_file(fmt::format("tensor '{}' reaches beyond its {} elements", shown, there));
    if (count > there) throw Error(fmt::format("tensor '{}' repeats its {} elements to {}", shown, there, count),
                                   "make it .contiguous() before torch.save");
    entry.bytes = found->second.subspan(size_t(offset) * size, size_t(end) * size);
    if (contiguous(entry.dims, entry.strides)) entry.strides.clear();
    entries_[name] = std::move(entry);
  };
  const auto read = [&] {
    const PickleValue& root = file.size() >= 2 && text_of(file).starts_with("PK") ? read_zip(storages, pickles)
                                                                                   : read_legacy(storages, pickles);
    const PickleValue& dict = find_state_dict(root);
    for (size_t i = 0; i + 1 < dict.items.size(); i += 2)
      if (dict.items[i]->is(Kind::text) && dict.items[i + 1]->is(Kind::tensor))
        add(*dict.items[i + 1], std::string(dict.items[i]->text));
  };
  try {
    read();
  } catch (const Error& e) {
    throw Error(fmt::format("{}: {}", path, e.what()), e.hint, e.usage);
  }
  for (int again = 0; again < 2; ++again)
    for (const char* prefix : {"module.", "_orig_mod."}) {
      const auto under = [&](const auto& item) { return item.first.starts_with(prefix); };
      if (std::ranges::all_of(entries_, under)) keep_under(prefix);
    }
}

const PickleValue& PytorchFile::read_zip(Storages& storages, std::vector<Pickle>& pickles) const {
  const Records records = records_of(file_.bytes());
  std::string prefix;
  for (const auto& [name, bytes] : records)
    if (name.ends_with("/data.pkl") && std::ranges::count(name, '/') == 1) prefix = name.substr(0, name.size() - 8);
  if (prefix.empty())
    throw Error("a zip archive, but none that torch.save wrote",
                fmt::format("`python3 weights/convert.py {} {}` reads NumPy's .npz", path(),
                            std::filesystem::path(path()).replace_extension(".safetensors").string()));
  if (records.contains(prefix + "constants.pkl"))
    throw Error("a TorchScript archive: code with weights",
                "in PyTorch: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')");
  if (const auto order = records.find(prefix + "byteorder"); order != records.end() && text_of(order->second) != "little")
    throw Error("it was written on a big-endian machine", "weights/convert.py reads it");
  const std::span<const std::byte> pickle = records.find(prefix + "data.pkl")->second;
  if (pickle.size() > kLargestPickle) damaged_file(fmt::format("its pickle has {} bytes", pickle.size()));
  for (const auto& [name, bytes] : records)
    if (name.starts_with(prefix + "data/")) storages[name.substr(prefix.size() + 5)] = bytes;
  return pickles.emplace_back(text_of(pickle)).value();
}

// A magic number, the version, facts on the machine, the value, the storages' keys; then, in the order of the keys, each
// storage: the number of its elements (int64) and the elements.
const PickleValue& PytorchFile::read_legacy(Storages& storages, std::vector<Pickle>& pickles) const {
  constexpr std::string_view kMagic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);  // little-endian
  const std::span<const std::byte> file = file_.bytes();
  size_t at = 0;
  pickles.reserve(5);
  for (int i = 0; i < 5; ++i) {
    const std::string_view rest = text_of(file).substr(at);
    at += pickles.emplace_back(rest.substr(0, kLargestPickle)).size();
    if (i == 0 && pickles[0].value().text != kMagic) throw Error("a pickle, but none that torch.save wrote", kSaveAgain);
  }
  std::map<std::string_view, size_t> sizes;  // bytes of an element
  for (const PickleValue* storage : pickles[3].storages())
    if (const PickleValue* type = storage_type(*storage)) {
      const auto known = std::ranges::find(kStorages, type->text, &StorageType::torch);
      if (known == std::end(kStorages)) throw Error(fmt::format("it holds a {}", printable(std::string(type->text))), kSaveAgain);
      sizes[storage->items[2]->text] = size_of_type(known->dtype);
    }
  for (const PickleValue* key : pickles[4].value().items) {
    const auto size = sizes.find(key->text);
    if (size == sizes.end()) damaged_file("its list of storages does not fit its tensors");
    const uint64_t count = number_at<uint64_t>(file, at);
    if (count > file.size()) damaged_file("a storage is cut off");
    storages[std::string(key->text)] = part_of(file, at + 8, count * size->second);
    at += 8 + count * size->second;
  }
  return pickles[3].value();
}

}  // namespace switchback
