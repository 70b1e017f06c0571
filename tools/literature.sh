#!/usr/bin/env bash
# The experiments of five documents about looking inside convolutional networks, each by the command that reproduces it, on
# one page: OUT/index.html opens from the file, with pictures, numbers, times, and what differs from the document.
#   tools/literature.sh [--quick] [--only 000,004] [--data FOLDER] [--out DIR]
#     --quick   only what takes a moment (the tests run this)
#     --only    these documents: 000 Fleuret, 001 Khozein, 002 Amirli, 003 Zhang, 004 Molchanov
#     --data    holds mnist/, cifar10/, photos/ and models/; default $SWITCHBACK_DATA, or else ../shared/data. What needs a part
#               that is not there stands on the page as not run
#     --out     default out/literature; its earlier page and pictures are replaced
# The program is $SWITCHBACK, or else build/switchback. Exit code 1 where a command failed; the page is written in any case.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

switchback=${SWITCHBACK:-build/switchback}
data=${SWITCHBACK_DATA:-../shared/data}
out=out/literature
only=000,001,002,003,004
quick=no
usage_error() { echo "literature.sh: $1 (see --help)" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=yes ;;
    --only | --data | --out)
      [ $# -ge 2 ] || usage_error "$1 wants a word"
      case $1 in --only) only=$2 ;; --data) data=$2 ;; --out) out=$2 ;; esac
      shift
      ;;
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' tools/literature.sh | sed '$d'
      exit 0
      ;;
    *) usage_error "unknown option $1" ;;
  esac
  shift
done
[[ $only =~ ^00[0-4](,00[0-4])*$ ]] || usage_error "--only '$only' is no list of 000 to 004"
[ -x "$switchback" ] || { echo "literature.sh: there is no $switchback (build it, or name it with SWITCHBACK=FILE)" >&2; exit 1; }

export SWITCHBACK_WEIGHTS=${SWITCHBACK_WEIGHTS:-weights} # those of this tree, whichever program runs
mnist=$data/mnist cifar=$data/cifar10 photos=$data/photos models=$data/models
mkdir -p "$out"
page=$out/index.html.partial
: >"$page"
ran=0 failed=0 missing=0 left_out=0

# ---- the page

escape() { sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g' -e 's/"/\&quot;/g' <<<"$1"; }

begin_page() {
  cat <<'HTML'
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Switchback: the literature, figure by figure</title>
<style>
:root { color-scheme: light dark; --ink: #1c1d1f; --soft: #5c6066; --paper: #fdfdfc; --line: #d9dadd; --code: #f1f1ee; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e7e4; --soft: #a3a7ad; --paper: #17181a; --line: #3a3c40; --code: #232528; } }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.2rem 5rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { margin-top: 3.5rem; border-top: 1px solid var(--line); padding-top: 1.2rem; }
h3 { margin: 2.4rem 0 .4rem; } p { margin: .4rem 0; max-width: 46rem; } .soft, dt, nav { color: var(--soft); }
pre { background: var(--code); padding: .6rem .8rem; overflow-x: auto; font-size: .85rem; line-height: 1.4; border-radius: 4px; }
img { max-width: 100%; height: auto; background: #fff; border: 1px solid var(--line); margin: .4rem .4rem 0 0; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem; margin: .6rem 0; } dd { margin: 0; }
nav a { margin-right: .8rem; } a { color: inherit; } .failed { color: #c0392b; }
</style>
<h1>The literature, figure by figure</h1>
HTML
}

# document ID TITLE: later figures belong to it.
document() {
  doc=$1
  here=no
  [[ ",$only," == *",$1,"* ]] || return 0
  here=yes
  echo "== $1 $2"
  printf '<h2 id="d%s">%s &middot; %s</h2>\n' "$1" "$1" "$(escape "$2")" >>"$page"
}

# needs FILE...: what the next figure reads besides what is shipped.
needs() { wanted=("$@"); }

# number LABEL KEY [COUNT]: the last number of this name in the next figure's JSON document goes on the page (of several inputs
# or states: the last one's), or so many from the first on, lists included.
number() { labels+=("$1") keys+=("$2") counts+=("${3:-}"); }

# shows PICTURES: names (patterns) of the next figure's pictures; default: the contact sheet, or else the first four.
shows() { patterns=("$@"); }

# figure quick|full NAME "FIGURE: TITLE" "what it showed there" "what differs here, and why" ARGUMENTS...: one run.
figure() {
  local level=$1 name=$2 title=$3 showed=$4 differs=$5 folder file begin seconds label value i code=0
  local -a files=() pictures=()
  shift 5
  if [ "$here" = yes ] && { [ "$quick" = no ] || [ "$level" = quick ]; }; then
    folder=$out/$doc-$name
    printf '<section id="f%s-%s">\n<h3>%s</h3>\n<p>%s</p>\n' "$doc" "$name" "$(escape "$title")" "$(escape "$showed")" >>"$page"
    printf '<pre><code>switchback %s</code></pre>\n' "$(escape "$(quoted "$@")")" >>"$page"
    for file in "${wanted[@]}"; do
      if [ ! -e "$file" ]; then files+=("$file"); fi
    done
    rm -rf "$folder"
    if [ "${#files[@]}" -gt 0 ]; then
      missing=$((missing + 1))
      echo "$doc-$name: not run, there is no ${files[0]}"
      printf '<p class="soft">Not run: there is no %s.</p>\n</section>\n' "$(escape "${files[0]}")" >>"$page"
    else
      mkdir -p "$folder"
      begin=$EPOCHREALTIME
      "$switchback" "$@" -o "$folder" --json >"$folder/run.json.txt" 2>"$folder/messages.txt" || code=$?
      seconds=$(LC_ALL=C awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3g", b - a }')
      mapfile -t pictures < <(pictures_of "$folder")
      if [ "$code" -ne 0 ] || [ "${#pictures[@]}" -eq 0 ]; then
        failed=$((failed + 1))
        echo "$doc-$name: FAILED (exit code $code, ${#pictures[@]} pictures)" >&2
        tail -n 3 "$folder/messages.txt" >&2
        printf '<p class="failed">Failed: %s</p>\n</section>\n' "$(escape "$(tail -n 1 "$folder/messages.txt")")" >>"$page"
      else
        ran=$((ran + 1))
        printf '%-34s %6s s\n' "$doc-$name" "$seconds"
        for file in "${pictures[@]}"; do
          printf '<img src="%s" alt="%s">\n' "$(escape "$doc-$name/${file##*/}")" "$(escape "$title")" >>"$page"
        done
        printf '<dl>\n' >>"$page"
        for i in "${!labels[@]}"; do
          label=${labels[$i]}
          if [ -n "${counts[$i]}" ]; then
            value=$(values_of "${keys[$i]}" "$folder" | head -n "${counts[$i]}" | rounded_lists | paste -sd '|' | sed 's/|/ \&middot; /g')
            printf '<dt>%s</dt><dd class="list">%s</dd>\n' "$(escape "$label")" "$value" >>"$page"
          else
            value=$(values_of "${keys[$i]}" "$folder" | tail -n 1)
            printf '<dt>%s</dt><dd class="number">%s</dd>\n' "$(escape "$label")" "$(rounded "${value:-null}")" >>"$page"
          fi
        done
        printf '<dt>seconds</dt><dd class="number">%s</dd></dl>\n' "$seconds" >>"$page"
        if [ -n "$differs" ]; then printf '<p class="soft">Here: %s</p>\n' "$(escape "$differs")" >>"$page"; fi
        printf '</section>\n' >>"$page"
      fi
    fi
  elif [ "$here" = yes ]; then
    left_out=$((left_out + 1))
  fi
  wanted=() labels=() keys=() counts=() patterns=()
}

# Words as a shell takes them, with quotes only where one needs them.
quoted() {
  local word text=''
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:,=+@%-]+$ ]]; then text+="$word "; else text+="'${word//\'/\'\\\'\'}' "; fi
  done
  printf '%s' "${text% }"
}

# Each value of this name in a run's JSON document, a number or a list of them, on a line of its own.
values_of() { tr -d '\n' <"$2/run.json.txt" | grep -oE "\"$1\": *(null|-?[0-9][-+.0-9e]*|\[[-+.0-9e, ]*\])" | sed -E 's/.*: *//; s/^\[ *//; s/ *\]$//; s/ +/ /g' || true; }

rounded_lists() { LC_ALL=C awk -F ', *' '{ for (i = 1; i <= NF; ++i) printf "%s%.4g", i > 1 ? " " : "", $i; print "" }'; }
rounded() { LC_ALL=C awk -v v="$1" 'BEGIN { if (v == "null") print "NaN"; else if (v ~ /^-?[0-9]+$/) print v; else printf "%.4g\n", v }'; }

# The names of a folder's pictures that go on the page.
pictures_of() {
  local pattern
  local -a found=()
  for pattern in "${patterns[@]}"; do
    mapfile -t -O "${#found[@]}" found < <(find "$1" -maxdepth 1 -name "$pattern" | sort -V)
  done
  if [ "${#patterns[@]}" -eq 0 ]; then
    mapfile -t found < <(find "$1" -maxdepth 1 -name 'contact_sheet*.png')
    if [ "${#found[@]}" -eq 0 ]; then mapfile -t found < <(find "$1" -maxdepth 1 -name '*.png' | sort -V | head -n 4); fi
  fi
  if [ "${#found[@]}" -gt 0 ]; then printf '%s\n' "${found[@]}"; fi
}

wanted=() labels=() keys=() counts=() patterns=() doc='' here=no

# ---- the documents. What is compared with is described in our words; figures are named as there.

test_digits=$mnist/t10k-images-idx3-ubyte.gz train_digits=$mnist/train-images-idx3-ubyte.gz
googlenet=$models/bvlc_googlenet.onnx squeezenet=$models/squeezenet1_1_mxnet.onnx resnet56=$models/resnet56_cifar10.onnx
cifar_train=("$cifar"/train_00[0-3].png) cifar_test=$cifar/test_000.png
samples=weights/samples
digits=("$samples"/digit_*.png)

begin_page >>"$page"
{
  echo '<p>Experiments of five documents, each reproduced by one command. The pictures beside a command are its own, of this'
  echo 'machine; &ldquo;Here&rdquo; says in what they differ from the document, mostly in the network: ImageNet and the weights of'
  echo 'AlexNet and VGG are not shipped, so that the nearest network at hand stands in.</p>'
  echo '<nav><a href="#d000">000 Fleuret</a><a href="#d001">001 Khozein</a><a href="#d002">002 Amirli</a><a href="#d003">003 Zhang</a><a href="#d004">004 Molchanov</a></nav>'
} >>"$page"

document 000 "François Fleuret: Deep learning, lecture 8, Under the hood (2018)"

number "linear regions at the end" regions
figure quick lines "Lines of a network's hidden units" \
  "A network of two inputs and 20 hidden units learns to part two classes; each unit is a line, and the lines move together until they enclose the classes." \
  "two hidden layers of 16 and two spirals, at five states of our own training; the second layer's lines bend at the first's." \
  regions --plane --model mlp --weights weights/spirals/step_*.safetensors --points weights/spirals/points.npy
figure quick filters-lenet1 "LeNet's first convolution, all filters" \
  "32 filters of 5x5 as grey images: strokes and edges." "" \
  filters --model lenet --layer conv1
figure quick filters-lenet2 "LeNet's second convolution, the first 32 of 64 filters" \
  "Filters of 32 channels each: beyond the first layer such images say little." "" \
  filters --model lenet --layer conv2 --filters 0-31 --channels 0-31
needs "$googlenet"
figure full filters-rgb "AlexNet's first convolution, as RGB images" \
  "Edges of every direction, gratings and colour blobs." "GoogLeNet's first convolution, 7x7." \
  filters --model "$googlenet" --layer conv1/7x7_s2
needs "$googlenet"
figure full filters-grey "AlexNet's first convolution, the first 20 filters by channel" \
  "The same filters, a grey image for each of the three channels." "GoogLeNet's first convolution." \
  filters --model "$googlenet" --layer conv1/7x7_s2 --filters 0-19 --channels all --color grey
needs "$googlenet"
figure full filters-second "AlexNet's second convolution, 15 channels of the first 20 filters" \
  "Small patterns without clear meaning." "GoogLeNet's second 3x3 convolution." \
  filters --model "$googlenet" --layer conv2/3x3 --filters 0-19 --channels 0-14
figure quick activations-digit "Activations of a digit in LeNet" \
  "The maps of the second convolution keep the digit's shape; a single channel has no clear meaning." "" \
  activations "$samples/digit_3.png" --model lenet --layer conv2
needs "$googlenet"
figure full activations-photo "Activations of a photo" \
  "AlexNet's and ResNet-152's maps of a photo: edges first, then parts that few channels answer to." "GoogLeNet's inception_3a." \
  activations "$samples/chelsea.png" --model "$googlenet" --layer inception_3a/relu_3x3
number "Kullback-Leibler divergence" kl
figure full swiss-roll "t-SNE unrolls the swiss roll" \
  "A rolled-up sheet with a dimension of noise: neighbours stay together, the roll opens." "" \
  embed swiss-roll --method tsne --perplexity 50
needs "$test_digits"
number "Kullback-Leibler divergence, by layer" kl 4
number "trustworthiness, by layer" trustworthiness 4
figure full embed-lenet "t-SNE of LeNet on MNIST, layer by layer" \
  "Digits of a class move together from layer to layer, until ten islands stand apart." "2,000 test digits." \
  embed "$test_digits" --model lenet --layer input,relu1,relu2,fc2 --method tsne --limit 2000
needs "$resnet56" "$cifar_test"
number "Kullback-Leibler divergence, by layer" kl 3
number "trustworthiness, by layer" trustworthiness 3
figure full embed-resnet "t-SNE of a ResNet on CIFAR-10" \
  "A home-made ResNet of 66 layers parts the ten classes towards its end." "ResNet-56 and 1,000 test images; its three stages." \
  embed "$cifar_test" --model "$resnet56" --layer layer1.8.relu2,layer2.8.relu2,layer3.8.relu2 --method tsne
needs "$squeezenet"
number "times less arithmetic than whole passes" flop_ratio
figure full occlusion "Occlusion sensitivity, mask 32x32, stride 2" \
  "VGG19's score falls where the mask covers the object, and hardly elsewhere." "SqueezeNet 1.1; 9,409 positions, each computed exactly, only where it changes something." \
  occlusion "$samples/chelsea.png" --model "$squeezenet" --mask 32 --stride 2
needs "$googlenet"
number "score" score
figure full gradient "The gradient as a saliency map" \
  "AlexNet's and VGG19's gradients of the strongest class: the object shines through much noise." "GoogLeNet." \
  gradient "$samples/chelsea.png" "$samples/astronaut.png" --model "$googlenet"
needs "$googlenet"
number "sign changes on the way" sign_changes
figure full along "Smilkov's Figure 2: one pixel's derivative on the way to a noisy copy" \
  "The derivative with respect to a pixel's colours jumps although the image doesn't visibly change." "GoogLeNet, 500 points." \
  gradient "$samples/chelsea.png" --model "$googlenet" --along seed --points 500
needs "$googlenet"
figure full smoothgrad "SmoothGrad with σ = Δ/4" \
  "The mean of 100 gradients of noisy copies: the object is much clearer than in the plain gradient." "GoogLeNet." \
  smoothgrad "$samples/chelsea.png" "$samples/astronaut.png" --model "$googlenet" --noise 0.25 --samples 100
figure quick rules "Gradient, deconvolution and guided back-propagation of digits" \
  "Three ways back through the ReLUs: the deconvolution lets positive gradients pass, guided back-propagation those at active units." "LeNet on drawn digits." \
  compare "$samples/digit_3.png" "$samples/digit_8.png" --model lenet --methods gradient,deconv,guided,smoothgrad
needs "$googlenet" "$photos/cat_dog.png" "$photos/spider.png"
figure full rules-photo "Gradient, deconvolution and guided back-propagation of photos" \
  "VGG16's maps of a dog and other photos; guided back-propagation draws the object's outlines." "GoogLeNet." \
  compare "$photos/cat_dog.png" "$photos/spider.png" --model "$googlenet" --methods gradient,deconv,guided
needs "$resnet56" "$cifar_test"
number "images" images
figure full top "Zeiler and Fergus: the nine strongest patches of channels, with their deconvolutions" \
  "Each channel's nine patches show one thing; their deconvolutions show what in them it answers to." "ResNet-56 on 1,000 small photos of CIFAR-10." \
  top "$cifar_test" --model "$resnet56" --layer layer2.8.relu2 --channels 0-8
figure quick maximum-digits "Maximum responses: the output units of LeNet" \
  "Images that drive a unit up, with and without a prior on edges." "LeNet's ten classes by Mahendran and Vedaldi's priors." \
  maximize --model lenet --target all --recipe mahendran --steps 40
for layer in conv2/3x3 inception_3a/3x3 inception_4a/3x3 inception_4e/3x3; do
  needs "$googlenet"
  number "value" value
  figure full "maximum-${layer//\//-}" "Maximum responses of hidden channels: $layer" \
    "Channels of VGG16's 4th, 7th, 10th and 13th convolution: textures first, then parts of objects." "four depths of GoogLeNet, by the lecture's recipe (Adam, multi-scale edge energy)." \
    maximize --model "$googlenet" --layer "$layer:max" --recipe fleuret
done
needs "$googlenet"
number "value, by class" value 8
figure full maximum-classes "Maximum responses of output units" \
  "King crab, Samoyed, hourglass, paper towel, ping-pong ball, steel arch bridge, sunglass and geyser can be recognised in what VGG16 wants to see." "GoogLeNet, eight units, by the lecture's recipe." \
  maximize --model "$googlenet" --target 121,258,604,700,722,821,836,974 --recipe fleuret
needs "$squeezenet" "$photos/snake.png"
number "class by iteration, of each photo" classes 2
number "samples of the sphere that keep the class" same 2
figure full adversarial "Adversarial ascent in 15 steps, and the sphere" \
  "A few steps of the loss's gradient change the class of a photo invisibly; 1,000 random images at twice the distance all keep it." "SqueezeNet." \
  adversarial "$samples/chelsea.png" "$photos/snake.png" --model "$squeezenet" --method ascent --sphere 1000
number "median confidence" median
figure quick fooling "Nguyen: images that are no digits, and read as ones" \
  "Evolved patterns which the network takes for digits with 99.99 % confidence." "LeNet; images drawn by small networks (CPPN), few generations here." \
  fool --model lenet --generations 30 --children 100
for encoding in cppn direct gradient; do
  case $encoding in
    cppn) how="drawn by small networks" ;;
    direct) how="pixel by pixel" ;;
    *) how="by the gradient" ;;
  esac
  number "median confidence" median
  figure full "fooling-$encoding" "Nguyen: images that are no digits, $how" \
    "After 200 generations the network is sure of all ten; evolved pixels look like noise, evolved networks like patterns." "LeNet, 200 generations of 200 children, or 200 steps." \
    fool --model lenet --encoding "$encoding"
done
needs "$models/deeplabv3_mnv2_dm05_257.onnx"
figure full dilation "Dilated convolutions" \
  "Dilation widens what a unit sees without pooling, as networks that label every place need it." "DeepLabV3 with dilations 2 and 4 finds the cat." \
  classify "$samples/chelsea.png" "$samples/astronaut.png" --model "$models/deeplabv3_mnv2_dm05_257.onnx" --save png

document 001 "Kiana Khozein: Hidden Figures (2017)"

figure quick switches "Figures 1 and 2: back through max pools by switches" \
  "Unpooling puts each value where its maximum was, so that the deconvolution keeps the image's geometry." "LeNet's two pools." \
  gradient "$samples/digit_4.png" "$samples/digit_6.png" --model lenet --rule deconv
needs "$resnet56" "$cifar_test"
figure full patches "Figures 3 and 4: strongest patches beside their deconvolutions, by layer" \
  "Layer 1 answers to edges, layer 2 to corners and shapes, layer 3 to textures." "ResNet-56's three stages on CIFAR-10." \
  top "$cifar_test" --model "$resnet56" --layer layer1.4.relu2,layer2.4.relu2,layer3.4.relu2 --channels 0-5
figure quick autoencoder "Figures 6 to 8: an autoencoder's layers, encoder beside decoder" \
  "Layers of equal size side by side: the decoder's are brighter and blurred, and show a checkerboard, since the stride does not divide the kernel." \
  "trained here on 4,000 images of CIFAR-10; a photo of a cat, reduced to 32x32." \
  activations "$samples/chelsea.png" --model autoencoder --pair enc0:dec1,enc1:dec2,enc2:dec3
for recipe in yosinski yosinski-norm yosinski-decay yosinski-contribution; do
  case $recipe in
    yosinski) rule="decay and blur" ;;
    yosinski-norm) rule="blur, and small pixels by norm" ;;
    yosinski-decay) rule="strong decay, and small pixels by norm" ;;
    *) rule="blur, and small pixels by contribution" ;;
  esac
  needs "$googlenet"
  number "value, by class" value 3
  figure full "$recipe" "Figure 9: Yosinski's regularised images: $rule" \
    "Decay, blur and clipping give images of classes that a person recognises." "GoogLeNet, three classes, one of the four published combinations." \
    maximize --model "$googlenet" --target 258,340,963 --recipe "$recipe"
done
needs "$googlenet"
number "error, by layer" error 3
figure full pre-images "Figures 10 and 11: natural pre-images" \
  "From shallow layers the photo comes back, from deep ones its parts." "GoogLeNet, three depths." \
  invert "$samples/chelsea.png" --model "$googlenet" --layer conv2/3x3,inception_3b/output,inception_4c/output
figure quick pre-images-digit "Pre-images of a digit" \
  "The same for a small network." "LeNet." \
  invert "$samples/digit_3.png" --model lenet --layer conv1,conv2 --steps 40

document 002 "Anar Amirli: Activation Maximization and Visualization of Features (2021)"

for size in 56 224; do
  needs "$squeezenet"
  number "value" value
  figure full "size-$size" "Figure 1: one filter at $size pixels" \
    "A small image gives coarse patterns of low resolution, a large one fine patterns that repeat too often." "a filter of SqueezeNet's fire6; the document has ResNet-34's. The step is that of its text." \
    maximize --model "$squeezenet" --layer fire6/expand3x3:20 --recipe amirli --lr 0.01 --scales 1 --size "$size"
done
needs "$squeezenet"
number "value" value
figure full size-growing "Figure 1: one filter, image growing" \
  "Beginning small and enlarging gives coarse patterns at high resolution." "the same filter, from 56 pixels on." \
  maximize --model "$squeezenet" --layer fire6/expand3x3:20 --recipe amirli --lr 0.01
needs "$squeezenet"
figure full filters "Figure 2: six filters of a middle layer" \
  "Textures that grow more complex with depth." "SqueezeNet's fire5, the same six numbers, in one batch." \
  maximize --model "$squeezenet" --layer fire5/expand3x3:2,9,16,34,91,92 --recipe amirli --lr 0.01
needs "$squeezenet"
figure full most-active "The most active filters of an image" \
  "The filters that an image drives most, with what they want to see." "SqueezeNet's fire9 on two photos." \
  channels "$samples/chelsea.png" "$samples/astronaut.png" --model "$squeezenet" --layer fire9/expand3x3/relu
needs "$squeezenet"
number "of ten filters shared with the whole image" shared 2
figure full occluded "Occluded copies, and which filters they share with the image" \
  "Covering the object changes the most active filters, covering the background does not." "SqueezeNet, boxes on the cat's face and beside it." \
  channels "$samples/chelsea.png" --model "$squeezenet" --layer fire9/expand3x3/relu --box 70,40,100,100 --box 0,150,70,70

document 003 "Xiaohan Zhang: Visualizing deep CNNs by class activation maps of an encoder-decoder (2019)"

narrow=encoder_decoder:classes=10,narrow=8,form=paper narrow_weights=weights/cifar10/encoder_decoder.safetensors
needs "$cifar_test"
number "accuracy" top1
figure full accuracy "Table 1 and Figures 6 and 7: accuracy; right and wrong predictions with their maps" \
  "Right answers have sharp maps, wrong ones dark and blurred maps and little confidence." "an eighth of the channels, 10 classes of CIFAR-10 enlarged to 64x64, trained here on 4,000 images." \
  evaluate "$cifar_test" --model "$narrow" --weights "$narrow_weights" --grid right,wrong
needs "$cifar_test"
number "correlation within a class" within
number "between classes" between
figure full similarity "Figure 8: one class, one pattern" \
  "Images of one class have maps of the same pattern." "as numbers: the correlation of maps within and between classes." \
  evaluate "$cifar_test" --model "$narrow" --weights "$narrow_weights" --similarity
needs "${cifar_train[0]}" "$cifar_test"
shows curves.png
figure full curves "Figure 2: loss and accuracy" \
  "Loss and accuracy of training and validation, epoch by epoch." "an eighth of the channels; 15 epochs of 4,000 images of CIFAR-10, where the document has 80 of 100,000." \
  train "${cifar_train[@]}" --validate "$cifar_test" --model "$narrow" --epochs 15 --batch-size 32 --lr 0.003
if [ -e "$out/003-curves/last.safetensors" ]; then
  needs "$cifar_test"
  figure full class-maps "Figures 3 to 5: a class's map over the epochs" \
    "The pattern of a class changes quickly at first, and settles; some classes settle earlier than others." "the run above." \
    cam "${cifar_test}[3]" "${cifar_test}[7]" --model "$narrow" --weights "$out"/003-curves/epoch-0{00,01,02,04,08,15}.safetensors
fi
needs "$cifar_test"
figure full perturbed "Figures 9 to 12: grey, blurred, other channels, salt and pepper" \
  "Grey images keep half the accuracy, 5x5 blur hurts more than 3x3, other channel orders confuse what colour decides, and a little salt and pepper lowers every confidence." \
  "the same changes of small photos, with their class maps." \
  perturb "${cifar_test}[3]" "${cifar_test}[7]" --model "$narrow" --weights "$narrow_weights" --method cam
needs "$cifar_test"
number "accuracy, unchanged" accuracy
figure full perturbed-all "Accuracy and confidence by kind of change" \
  "Of 100 grey images 45.5 % are read rightly; wrong answers have little confidence." "1,000 test images of CIFAR-10." \
  perturb "$cifar_test" --model "$narrow" --weights "$narrow_weights" --method cam
figure quick layers-combined "Layers combined over the image" \
  "Outputs of several layers laid over the photo together." "ResNet-20 of small photos, trained here." \
  cam "$samples/chelsea.png" --model resnet20 --layers layer1.2.relu_1,layer2.2.relu_1,layer3.2.relu_1

document 004 "Molchanov, Vishnyakov, Gorbatsevich, Vizilter: Etalon images (2020)"

number "residual" residual_relative
figure quick subgraph "Figures 2 to 6: the active subgraph" \
  "For one input a network is the affine map of the units that are active." "LeNet: which units of each layer are active, and what each connection adds." \
  etalon "$samples/digit_4.png" --model lenet --subgraph
number "residual" residual_relative
number "seconds of the passes" run
figure quick algorithm1 "Algorithm 1: a pass for each pixel" \
  "The published way: the image's gates and switches are kept, and each coordinate image goes through: 784 passes." "" \
  etalon "$samples/digit_4.png" --model lenet --algorithm coordinate
number "residual" residual_relative
number "seconds of the pass" run
figure quick single-pass "The same in a single pass" \
  "Left as possible by the authors, who thought of matrices: one backward pass gives all ten rows." "" \
  etalon "$samples/digit_4.png" --model lenet
needs "$cifar_test"
number "residual" residual_relative
number "seconds of the passes" run
figure full algorithm1-resnet "Algorithm 1 on a larger network" \
  "A pass for each value of the image, which the authors could not afford beyond small networks." "ResNet-20 of CIFAR-10: 3,072 passes." \
  etalon "${cifar_test}[3]" --model resnet20 --algorithm coordinate
needs "$cifar_test"
number "residual" residual_relative
number "seconds of the pass" run
figure full single-pass-resnet "The same larger network in a single pass" \
  "The same ten rows." "" \
  etalon "${cifar_test}[3]" --model resnet20
figure quick etalons "Figures 7 to 9 and 11: ten digits and their ten etalons" \
  "A unit's etalon has bright places where it wants ink and dark ones where it votes against; that of the digit's own class shows its shape." "" \
  etalon "${digits[@]}" --model lenet
needs "$train_digits" "$test_digits"
shows curves.png
figure full training-all "Regions over the epochs: a run with all digits" \
  "An open question of the document: what etalons say of under- and overfitting." "LeNet, 3 epochs of 60,000 digits." \
  train "$train_digits" --validate "$test_digits" --model lenet --epochs 3 --batch-size 128
needs "$train_digits" "$test_digits"
shows curves.png
figure full training-few "Regions over the epochs: a run with a hundredth of them" \
  "" "LeNet, 30 epochs of 600 digits." \
  train "${train_digits}[0:600]" --validate "$test_digits" --model lenet --epochs 30 --batch-size 20
if [ -e "$out/004-training-all/last.safetensors" ] && [ -e "$out/004-training-few/last.safetensors" ]; then
  needs "$test_digits"
  number "linear regions of 2,000 test digits at the end" regions
  figure full regions "Regions and etalons of both runs" \
    "" "accuracy, linear regions that the test digits meet, Hamming distances and etalons over the epochs, of both runs." \
    regions "$test_digits" --limit 2000 --model lenet --weights "$out/004-training-all" --weights "$out/004-training-few" --etalons
fi

printf '<p class="soft">%s figures, %s not run for want of data, %s failed.</p>\n</html>\n' "$ran" "$missing" "$failed" >>"$page"
mv "$page" "$out/index.html"
echo
echo "$ran figures, $missing not run for want of data, $failed failed${left_out:+, $left_out left out by --quick}"
echo "The page is $(cd "$out" && pwd)/index.html"
[ "$failed" -eq 0 ]
