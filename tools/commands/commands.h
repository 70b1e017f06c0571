// The subcommands, as one table. To add one: its file tools/commands/NAME.cpp and its row here; help, the list of commands
// in error messages and parsing follow from the row.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace switchback {

// Adds the command's options to `app` and returns what runs it once they are parsed.
using Setup = std::function<void()> (*)(CLI::App& app);

struct Command {
  const char* name;
  const char* about;  // one line
  // What follows `switchback NAME`, one a line. All run in the project's folder with what is shipped; out/digits is the
  // README's.
  const char* examples;
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
std::function<void()> setup_fool(CLI::App& app);
std::function<void()> setup_filters(CLI::App& app);
std::function<void()> setup_activations(CLI::App& app);
std::function<void()> setup_dump(CLI::App& app);
std::function<void()> setup_info(CLI::App& app);
std::function<void()> setup_models(CLI::App& app);
std::function<void()> setup_top(CLI::App& app);
std::function<void()> setup_distribution(CLI::App& app);
std::function<void()> setup_embed(CLI::App& app);
std::function<void()> setup_adversarial(CLI::App& app);
std::function<void()> setup_perturb(CLI::App& app);
std::function<void()> setup_judge(CLI::App& app);
std::function<void()> setup_maximize(CLI::App& app);
std::function<void()> setup_invert(CLI::App& app);
std::function<void()> setup_train(CLI::App& app);
std::function<void()> setup_merge(CLI::App& app);
std::function<void()> setup_bench(CLI::App& app);

// Runs `switchback ARGUMENTS` (main.cpp).
void run_command_line(std::vector<std::string> arguments);

inline constexpr Command kCommands[] = {
    {"classify", "the most probable classes of each image",
     "weights/samples/digit_*.png --model lenet",
     setup_classify},
    {"evaluate", "top-1, top-5 and loss over a labelled data set, confusion table, worst cases",
     "out/digits --model lenet\n"
     "out/digits --model lenet --grid right,wrong --map gradient\n"
     "out/digits --model lenet --shard 1/2\n"
     "out/digits --model lenet --shard 2/2",
     setup_evaluate},
    {"gradient", "gradient, deconv and guided-backpropagation maps",
     "weights/samples/digit_3.png --model lenet --rule guided\n"
     "weights/samples/digit_3.png --model lenet --target all --save png,npy\n"
     "weights/samples/digit_3.png --model lenet --layer conv2:4:max\n"
     "weights/samples/digit_3.png --model lenet --weights random:0,weights/lenet.safetensors",
     setup_gradient},
    {"smoothgrad", "mean, mean square or variance of the gradient over noisy copies of the image",
     "weights/samples/digit_3.png --model lenet --samples 100 --noise 0.2",
     setup_smoothgrad},
    {"integrated", "integrated gradients between a baseline and the image",
     "weights/samples/digit_3.png --model lenet --steps 100",
     setup_integrated},
    {"occlusion", "how the score falls when a mask covers a part of the image",
     "weights/samples/digit_4.png --model lenet --mask 6 --stride 1\n"
     "weights/samples/digit_4.png --model lenet --box 8,6,12,8",
     setup_occlusion},
    {"cam", "class activation maps: CAM, Grad-CAM, Grad-CAM++, guided Grad-CAM",
     "weights/samples/digit_*.png --model lenet --layer conv2",
     setup_cam},
    {"compare", "one figure of several methods, for several inputs and models",
     "weights/samples/digit_*.png --model lenet --mask 6 --stride 2",
     setup_compare},
    {"etalon", "etalon images: the affine map that the network is around each input",
     "weights/samples/digit_4.png --model lenet\n"
     "weights/samples/digit_4.png --model lenet --target max --save npy",
     setup_etalon},
    {"regions", "the linear regions that a data set meets, or those of the plane of a network with two inputs",
     "out/digits --model lenet\n"
     "--plane --model mlp --weights weights/spirals/*.safetensors --points weights/spirals/points.npy",
     setup_regions},
    {"channels", "which channels of a layer answer to an image, and to occluded copies of it",
     "weights/samples/digit_3.png --model lenet --layer relu2 --box 8,6,12,8",
     setup_channels},
    {"top", "the patches of a data set that channels answer to most, beside their maps",
     "out/digits --model lenet --layer conv2\n"
     "out/digits --model lenet --layer relu1,relu2 --channels 0-7 --keep 4 --save png,npy",
     setup_top},
    {"distribution", "how a layer's channels are distributed over a data set, by class and in all",
     "out/digits --model lenet --layer conv2\n"
     "out/digits --model lenet --layer relu1,relu2 --weights random:0,weights/lenet.safetensors --save png,npy",
     setup_distribution},
    {"perturb", "how class, confidence and map change under blur, noise and other changes of the image",
     "weights/samples/digit_*.png --model lenet\n"
     "out/digits --model lenet --kind impulse,rotate:20,occlude:8,6,12,8 --method cam",
     setup_perturb},
    {"judge", "how good the maps of several methods are, by metrics, beside a random map and an edge detector",
     "weights/samples/digit_*.png --model lenet --methods gradient,gradcam,occlusion --mask 6 --stride 2",
     setup_judge},
    {"embed", "a data set's values at a layer as a map of two or three dimensions (PCA, t-SNE), and their clusters (k-means)",
     "out/digits --model lenet --layer input,relu2,fc1\n"
     "out/digits --model lenet --layer fc1 --method tsne --perplexity 3 --clusters 4 --thumbnails\n"
     "swiss-roll --method tsne",
     setup_embed},
    {"maximize", "images that drive units up, by recipes of the literature",
     "--model lenet --target all --recipe mahendran\n"
     "--model lenet --layer conv2:3 --frames 5",
     setup_maximize},
    {"invert", "images that a layer can't tell from a photo",
     "weights/samples/digit_3.png --model lenet --layer conv1,conv2",
     setup_invert},
    {"adversarial", "a changed image that is read as another class; robust accuracy of a data set",
     "weights/samples/digit_*.png --model lenet --epsilon 0.2\n"
     "out/digits --model lenet --epsilon 0,0.1,0.2,0.3",
     setup_adversarial},
    {"fool", "images that are read as each class with confidence, and mean nothing to a person",
     "--model lenet --generations 100\n"
     "--model lenet --encoding gradient",
     setup_fool},
    {"filters", "the weights of a convolution as a picture grid",
     "--model lenet --layer conv2",
     setup_filters},
    {"activations", "the maps of a layer as a picture grid",
     "weights/samples/digit_3.png --model lenet --layer conv2\n"
     "weights/samples/chelsea.png --model autoencoder --weights random:0 --pair enc0:dec1,enc1:dec2,enc2:dec3",
     setup_activations},
    {"dump", "every node's activation and gradient in one .npz, to compare with another program",
     "weights/samples/digit_3.png --model lenet --backward",
     setup_dump},
    {"info", "the layers of a model; without --model, this machine and build",
     "\n"
     "--model lenet",
     setup_info},
    {"models", "the built-in architectures, and which weights are at hand",
     "\n"
     "--json",
     setup_models},
    {"train", "trains a model on a data set",
     "out/digits --model lenet --epochs 12 --batch-size 5 --validate out/digits -o out/trained",
     setup_train},
    {"merge", "joins the parts of runs with --shard to the results of one run",
     "out/digits.evaluate.shard-*.part",
     setup_merge},
    {"bench", "throughput of a method or of one op",
     "--method gradient --model lenet --batch 16\n"
     "--op conv --shape 1,64,56,56,64,3,1,1",
     setup_bench},
};

}  // namespace switchback
