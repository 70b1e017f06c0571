// The subcommands, as one table. To add one: its file tools/commands/NAME.cpp and its row here; help, the list of commands
// in error messages and parsing follow from the row.
#pragma once

#include <functional>
#include <span>

namespace CLI {
class App;
}

namespace switchback {

// Adds the command's options to `app` and returns what runs it once they are parsed.
using Setup = std::function<void()> (*)(CLI::App& app);

struct Command {
  const char* name;
  const char* about;  // one line
  Setup setup;
};

std::function<void()> setup_classify(CLI::App& app);
std::function<void()> setup_evaluate(CLI::App& app);
std::function<void()> setup_gradient(CLI::App& app);
std::function<void()> setup_smoothgrad(CLI::App& app);
std::function<void()> setup_integrated(CLI::App& app);
std::function<void()> setup_occlusion(CLI::App& app);
std::function<void()> setup_cam(CLI::App& app);
std::function<void()> setup_compare(CLI::App& app);
std::function<void()> setup_etalon(CLI::App& app);
std::function<void()> setup_regions(CLI::App& app);
std::function<void()> setup_channels(CLI::App& app);
std::function<void()> setup_filters(CLI::App& app);
std::function<void()> setup_activations(CLI::App& app);
std::function<void()> setup_dump(CLI::App& app);
std::function<void()> setup_info(CLI::App& app);
std::function<void()> setup_models(CLI::App& app);
std::function<void()> setup_adversarial(CLI::App& app);
std::function<void()> setup_maximize(CLI::App& app);
std::function<void()> setup_invert(CLI::App& app);
std::function<void()> setup_train(CLI::App& app);
std::function<void()> setup_bench(CLI::App& app);

inline constexpr Command kCommands[] = {
    {"classify", "the most probable classes of each image", setup_classify},
    {"evaluate", "top-1, top-5 and loss over a labelled data set, confusion table, worst cases", setup_evaluate},
    {"gradient", "gradient, deconv and guided-backpropagation maps", setup_gradient},
    {"smoothgrad", "mean, mean square or variance of the gradient over noisy copies of the image", setup_smoothgrad},
    {"integrated", "integrated gradients between a baseline and the image", setup_integrated},
    {"occlusion", "how the score falls when a mask covers a part of the image", setup_occlusion},
    {"cam", "class activation maps: CAM, Grad-CAM, Grad-CAM++, guided Grad-CAM", setup_cam},
    {"compare", "one figure of several methods, for several inputs and models", setup_compare},
    {"etalon", "etalon images: the affine map that the network is around each input", setup_etalon},
    {"regions", "the linear regions that a data set meets, or those of the plane of a network with two inputs",
     setup_regions},
    {"channels", "which channels of a layer answer to an image, and to occluded copies of it", setup_channels},
    {"filters", "the weights of a convolution as a picture grid", setup_filters},
    {"activations", "the maps of a layer as a picture grid", setup_activations},
    {"dump", "every node's activation and gradient in one .npz, to compare with another program", setup_dump},
    {"adversarial", "a changed image that is read as another class; robust accuracy of a data set", setup_adversarial},
    {"maximize", "images that drive units up, by recipes of the literature", setup_maximize},
    {"invert", "images that a layer can't tell from a photo", setup_invert},
    {"info", "the layers of a model; without --model, this machine and build", setup_info},
    {"models", "the built-in architectures, and which weights are at hand", setup_models},
    {"train", "trains a model on a data set", setup_train},
    {"bench", "throughput of a method or of one op", setup_bench},
};

}  // namespace switchback
