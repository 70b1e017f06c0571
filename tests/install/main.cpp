// The guided map of a digit, with the library alone. Argument: the folder of the installed weights.
#include <switchback/switchback.h>

#include <cstdio>

using namespace switchback;

int main(int, char** arguments) try {
  const std::string weights = arguments[1];
  const Network network = make_network("lenet");
  const Model lenet{network, load_weights(network, Safetensors(weights + "/lenet.safetensors"))};

  Context context;
  const Tensor x = preprocess(load_image(weights + "/samples/digit_7.png"), lenet_preprocess());  // [1,1,28,28]
  GradientOptions options;
  options.rule = kGuided;
  const Maps maps = gradient(context, lenet, x, TargetSpec{}, {}, options);  // values: [1,1,1,28,28]

  const Explained& digit = maps.explained[0];
  std::printf("switchback %s reads %d with probability %.4f\n", kVersion, int(digit.units[0].channel),
              digit.probabilities[0]);
  write_png("seven.png", enlarge_to_at_least(signed_rgb(maps.values.data(), 1, 28, 28, ChannelOrder::grey), 280));
} catch (const Error& error) {
  std::fprintf(stderr, "example: %s (%s)\n", error.what(), error.hint.c_str());
  return 1;
}
