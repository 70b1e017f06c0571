// Class activation maps: which places of a layer's maps speak for a class. With A_k the layer's maps, [C,h,w], S the
// score and g = ∂S/∂A:
//
// cam: M_c = Σ_k w_k^c A_k, what each place adds to the logit of class c, where the network ends in global average
//   pooling and one linear layer with weights w (Zhou et al. 2016, eq. 1 and 2). The mean of M_c is the logit without
//   its bias. Where the logits are themselves pooled maps, one for each class (Zhang's encoder-decoder, SqueezeNet),
//   M_c is the map of the class.
// gradcam: ReLU(Σ_k α_k A_k), α_k = the mean of g_k over its places (Selvaraju et al. 2017, eq. 1 and 2).
// gradcam++: ReLU(Σ_k w_k A_k), w_k = Σ_ij α_kij ReLU(g_kij), where α = g² / (2 g² + ΣA_k · g³), 0 where g is 0: the
//   closed form for Y = exp(S) (Chattopadhay et al. 2018). The factor exp(S) of ∂Y/∂A = exp(S) g, the same at every
//   place, is left out, since it overflows where logits are large. (Programs that add 1e-6 to the denominator get
//   other maps where g² is as small as that.)
// hirescam: ReLU(Σ_k g_k ⊙ A_k) (Draelos and Carin 2020).
// layercam: ReLU(Σ_k ReLU(g_k) ⊙ A_k) (Jiang et al. 2021).
// xgradcam: ReLU(Σ_k w_k A_k), w_k = Σ g_k ⊙ A_k / ΣA_k, 0 where ΣA_k is 0 (Fu et al. 2020).
// guided-gradcam: guided backpropagation at the input ⊙ the Grad-CAM map enlarged to the input's size (Selvaraju et
//   al. 2017, section 3.2).
// fullgrad: Σ_c ψ(|x_c g_c|) + Σ over layers and channels ψ(|b_k g_k|), [H,W] of the input: g_k the gradient where the bias b_k is
//   added, of layers whose results have places; a batch norm behind a convolution is one with it. ψ stretches a channel to 0 … 1
//   (of a constant one: 0) and enlarges it bilinearly (Srinivas and Fleuret 2019; a channel at a time as pytorch-grad-cam).
// Without gradients (cam_forward.cpp):
// eigencam: ReLU of the maps' projection on their first principal component: A as [places,C], each channel less its mean;
//   the same for every class (Bany Muhammad and Yeasin 2020). Its sign, which an eigenvector leaves open, is the one that
//   goes with the places' sums Σ_k A_k.
// scorecam: ReLU(Σ_k w_k A_k), w the softmax over k of the scores of x ⊙ mask_k, mask_k = A_k enlarged bilinearly, from 0 at
//   its least to 1 at its largest value; of a constant map 0 (Wang et al. 2020).
// ablationcam: ReLU(Σ_k w_k A_k), w_k = (S − S_k)/S, S_k the score with A_k = 0 (Desai and Ramaswamy 2020). What lies before
//   the layer is computed once.
// rise: Σ_m S(x ⊙ M_m) M_m / (N·keep) over N random masks (Petsiuk et al. 2018), [H,W] of the input: grid x grid cells, each
//   left with probability `keep`, enlarged bilinearly to one cell more and moved by less than a cell. Mask m is made of the
//   words of Philox with counter (block, 3, m, 0): two for its place, then one a cell; the same for all images and classes.
// Of transformers, whose tokens are patches (tokens.h); with A_l the attention of layer l, [heads,T,T]:
// rollout: the row of the tokens that the classes are read from in Π_l (½ I + ½ mean over heads of A_l), whatever the
//   class (Abnar and Zuidema 2020).
// attention-gradient: that row of Π_l (I + mean over heads of ReLU(∂S/∂A_l ⊙ A_l)) (Chefer et al. 2021, eq. 5 and 6).
// Maps of tokens are those of the patches: a class token and its like are left out first.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/run/plan.h"
#include "viz/methods/gradient.h"

namespace switchback {

enum class CamMethod { cam, gradcam, gradcam_plus_plus, hirescam, layercam, xgradcam, guided_gradcam, fullgrad, eigencam, scorecam, ablationcam, rise, rollout, attention_gradient };

struct CamOptions : RunOptions {
  CamMethod method = CamMethod::gradcam;
  std::vector<int> layers;  // nodes whose maps are taken; empty: last_map_node, or where `cam` finds its maps
  // Of rise.
  int64_t masks = 4000, grid = 7;
  double keep = 0.5;
  uint64_t seed = 0;
};

struct Cams {
  std::vector<int> layers;
  std::vector<Tensor> maps;          // of each layer (of rise: one), [N,T,h,w] in its own size; T = targets of each image
  Tensor guided;                     // [N,T,C,H,W], of guided-gradcam only
  std::vector<Explained> explained;  // one per image
  int64_t batch = 0;                 // images of one forward pass
  std::vector<int> attention;        // of rollout and attention-gradient: the layers that were followed
  bool from_zero = true;             // maps are shown as f / max f; false: from their least to their largest value
};

// x: [N,C,H,W]. `target` names classes, no hidden units: its layer is empty.
Cams class_activation_maps(Context& ctx, const Model& model, const Tensor& x, const TargetSpec& target,
                           const std::vector<std::string>& labels, const CamOptions& options = {});

// Where a network's classes come from, if exact maps can be had of it.
struct CamHead {
  int maps = -1;    // the node that is pooled
  int linear = -1;  // the linear layer (or 1x1 convolution) that weighs the pooled channels; -1: one map for each class
};
std::optional<CamHead> find_cam_head(const Network& network, Shape input);
// The last convolutional map: the last node with maps that the logits depend on, pools and dropouts behind it left out
// (`features.29` of vgg16, `layer4.1.relu_1` of resnet18); of transformers that read a class token, what their last attention
// layer reads. Throws (usage) where the output is itself made of maps.
int last_map_node(const Network& network, Shape input);

// The maps of all layers, enlarged bilinearly: [N,T,L,H,W].
Tensor enlarged_maps(const Cams& cams, int64_t h, int64_t w);
// L maps of one size in one, in [0,1]: the mean of f / max f over the layers (Zhang's "combination output of different
// layers").
std::vector<float> combined_map(const float* maps, int64_t layers, int64_t places);

}  // namespace switchback
