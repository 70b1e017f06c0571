// Names of result files: two runs over the same inputs with the same model share one only if they computed the same.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchback {

// One option that changes results, as it stands in a run.
struct Setting {
  enum class Form { value, option_and_value, option };  // "-guided", "-samples100" or "-fill_mean", "-times-input"
  std::string option;           // without its dashes
  std::string standard, given;  // equal texts add nothing to names
  Form form = Form::option_and_value;
  bool pictures_only = false;  // arrays are the same whatever it says
};

// "-guided-samples100": what the settings add to a name, in their order. Long ones end in a checksum.
std::string name_suffix(std::span<const Setting> settings, bool picture);

// The text as a part of a name: ':' becomes '@'; where anything else had to be replaced, a checksum of the text follows.
std::string name_part(std::string_view text);

// What --name may hold in braces. By default a result is "{stem}.{command}{options}".
struct NameFields {
  std::string stem, command, options, model, layer, target;
  int64_t index = 0;  // of the input in the run
};
inline constexpr const char* kDefaultName = "{stem}.{command}{options}";
// Throws (usage) on what is no template.
std::string name_by_template(std::string_view text, const NameFields& fields);

}  // namespace switchback
