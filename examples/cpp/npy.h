// Files of numpy and of prepare.py, read without copying: the embeddings of a 7B model are a gigabyte.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ltbm {

// An array in a .npy file, mapped into memory: C order, little-endian, any type that numpy names like "<f4".
class Npy {
 public:
  explicit Npy(const std::string& path) {
    const int file = open(path.c_str(), O_RDONLY);
    struct stat status {};
    if (file < 0 || fstat(file, &status) != 0) throw std::runtime_error("no file " + path);
    size_ = static_cast<size_t>(status.st_size);
    map_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (map_ == MAP_FAILED) throw std::runtime_error(path + " cannot be mapped");
    read_header(path);
  }
  ~Npy() { munmap(map_, size_); }
  Npy(const Npy&) = delete;
  Npy& operator=(const Npy&) = delete;

  std::string type;  // such as <f4, <f2, <u2
  std::vector<int64_t> shape;
  const char* data = nullptr;

 private:
  void read_header(const std::string& path) {
    const char* bytes = static_cast<const char*>(map_);
    if (size_ < 12 || std::memcmp(bytes, "\x93NUMPY", 6) != 0)
      throw std::runtime_error(path + " is no .npy file");
    const size_t start = bytes[6] == 1 ? 10 : 12;
    uint32_t length = 0;
    std::memcpy(&length, bytes + 8, start - 8);
    const std::string header(bytes + start, length);
    if (header.find("'fortran_order': False") == std::string::npos)
      throw std::runtime_error(path + " is not in C order");
    const size_t quote = header.find('\'', header.find("'descr':") + 8) + 1;
    type = header.substr(quote, header.find('\'', quote) - quote);
    std::istringstream extents(header.substr(header.find('(') + 1));
    for (int64_t extent; extents >> extent; extents.ignore()) shape.push_back(extent);
    data = bytes + start + length;
  }

  void* map_ = nullptr;
  size_t size_ = 0;
};

// What prepare.py writes beside the features: lines of a name and numbers.
class Request {
 public:
  explicit Request(const std::string& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("no file " + path + ": write it with prepare.py");
    for (std::string line, name; std::getline(file, line);) {
      std::istringstream words(line);
      words >> name;
      for (double number; words >> number;) values_[name].push_back(number);
    }
  }
  std::vector<int64_t> all(const std::string& name) const {
    const std::vector<double>& numbers = find(name);
    return {numbers.begin(), numbers.end()};
  }
  int64_t operator[](const std::string& name) const { return static_cast<int64_t>(real(name)); }
  double real(const std::string& name) const { return find(name).at(0); }

 private:
  const std::vector<double>& find(const std::string& name) const {
    const auto found = values_.find(name);
    if (found == values_.end())
      throw std::runtime_error("the request has no " + name + ": write it again with prepare.py");
    return found->second;
  }

  std::map<std::string, std::vector<double>> values_;
};

}  // namespace ltbm
