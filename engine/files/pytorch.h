// State dicts as torch.save writes them: the zip format (PREFIX/data.pkl and, uncompressed, PREFIX/data/KEY for each
// storage) and the one before PyTorch 1.6 (five pickles, then the storages). Nothing that a file names is run: see
// pickle.h. The file is mapped; every size is checked against it before use.
#pragma once

#include <string>
#include <string_view>

#include "engine/files/pickle.h"
#include "engine/files/state_dict.h"

namespace switchback {

// Tensors of the state dict itself, or of the one that a training script's dict holds as "state_dict",
// "model_state_dict", "model", "net", "network", "weights" or "params". The prefixes "module." (DataParallel) and
// "_orig_mod." (torch.compile) are cut off where all names have them.
class PytorchFile : public StateDict {
 public:
  explicit PytorchFile(const std::string& path);
  static bool is_one(std::string_view first_bytes);  // or a zip archive or pickle of another kind

 private:
  using Storages = std::map<std::string, std::span<const std::byte>, std::less<>>;  // by their keys
  // The value that was saved; it lives in `pickles`.
  const PickleValue& read_zip(Storages& storages, std::vector<Pickle>& pickles) const;
  const PickleValue& read_legacy(Storages& storages, std::vector<Pickle>& pickles) const;
};

}  // namespace switchback
