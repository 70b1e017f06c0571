// Class names.
#pragma once

#include <string>
#include <vector>

namespace switchback {

// One class a line; of several comma-separated names the first counts, and a leading WordNet number is left out:
// "n01440764 tench, Tinca tinca" is "tench".
std::vector<std::string> load_labels(const std::string& path);

}  // namespace switchback
