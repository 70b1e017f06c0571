// Data sets: an idx pair, CIFAR as binary files or mosaics, an .npz, a folder with one sub-folder a class, tar archives of
// WebDataset; without labels a folder of images.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/files/image.h"
#include "engine/files/tar.h"

namespace switchback {

class Dataset {
 public:
  int64_t size() const { return int64_t(labels_.size()); }
  bool labelled() const { return !classes.empty(); }
  int label(int64_t i) const { return labels_.at(i); }  // -1 where there are none
  Image image(int64_t i) const;       // grey for idx files, else RGB
  std::string path(int64_t i) const;  // of the image file, or "FILE[i]" inside a bigger one
  int64_t number(int64_t i) const;    // in the whole data set, where this is a part, or parts of several
  void append(const Dataset& more);   // throws where its classes or its images' sizes are others
  void join_classes();                // all images become one class
  std::vector<std::string> classes;   // names by label; every label is below classes.size(). None: there are no labels
  bool numbered = false;              // their names are the labels alone, of which the highest ones may be missing

 private:
  friend Dataset open_dataset(const std::string& path, bool upright);
  friend struct DatasetReader;
  Dataset part(int64_t first, int64_t last) &&;
  // Images from `begin` on, to the next source's, are `path`'s from its image `first` on.
  struct Source {
    std::string path;
    int64_t begin = 0, first = 0;
  };
  const Source& source(int64_t i) const;
  std::vector<int> labels_;
  std::vector<std::string> files_;  // one an image, or none where files hold many
  std::vector<TarEntry> entries_;   // of tar archives
  std::vector<Source> sources_;     // those files; or one for all, where a folder holds them
  int width_ = 0, height_ = 0, channels_ = 0;
  bool upright_ = false;
  std::vector<uint8_t> pixels_;  // (image, height, width, channels) where files hold many
};

// PATH is
//  - an idx images file, gzipped or not, with its labels file beside it (t10k-images-idx3-ubyte.gz and
//    t10k-labels-idx1-ubyte.gz), or a folder with such a pair (t10k is preferred);
//  - a CIFAR mosaic PREFIX_NNN.png of 32x32 tiles, 40 a row, 1000 a file, with PREFIX_labels*.u8 beside it, one byte
//    an image of all of PREFIX's files;
//  - a binary file of CIFAR-10 (records of a label and 3x1024 bytes) or CIFAR-100 (two labels, of which the fine one
//    counts), with its names in batches.meta.txt or fine_label_names.txt beside it, else CIFAR-10's or numbers; or a
//    folder with test_batch.bin or test.bin;
//  - an .npz with images and their labels (npz_images.h), FILE.npz, or FILE.npz:x_train where it holds several;
//  - a folder with one sub-folder of images a class, which may have folders of its own: the sorted names are the
//    classes, or, where all names are numbers, these are the labels;
//  - a .tar, or a folder of them, as of WebDataset: images NAME.jpg with their labels in NAME.cls, a number, or in NAME.json
//    as "label" or "cls"; or with none at all;
//  - a folder of images: they have no labels.
// PATH[INDEX] is one image of it, PATH[FIRST:LAST] those from FIRST on and before LAST (either may be left out).
// `upright`: image files are turned as their EXIF orientation says.
Dataset open_dataset(const std::string& path, bool upright = false);

// Whether it names a data set or a part of one; a folder with images of its own is none.
bool is_dataset(const std::string& path);

// "t10k-images-idx3-ubyte" of "../t10k-images-idx3-ubyte.gz", with "@5" or "@0-10" of a part: of result files.
std::string dataset_stem(const std::string& path);

}  // namespace switchback
