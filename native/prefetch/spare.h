// Device memory of ours: segments that the driver below gave, cut into places.
//
// A guest's memory. It grows a segment at a time, by a thread of the program's, while the device has
// room to spare; it never exceeds its budget, and it is wiped and given back whole when the program is
// short of memory.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "prefetch/below.h"

namespace pipellm::prefetch {

class Spare;

// Device memory that is in use for as long as this lives. Whoever has work on a stream that touches it
// keeps it until that is over.
class Place {
 public:
  ~Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  std::uint8_t* data() const { return data_; }
  std::uint64_t nbytes() const { return nbytes_; }
  // Cuts it in two: this one keeps the first `nbytes`, a multiple of kAlignment.
  std::shared_ptr<Place> split(std::uint64_t nbytes);

 private:
  friend class Spare;
  Place(Spare& spare, std::uint8_t* data, std::uint64_t nbytes)
      : spare_(spare), data_(data), nbytes_(nbytes) {}

  Spare& spare_;
  std::uint8_t* const data_;
  std::uint64_t nbytes_;
};

// Internally locked. Outlives its places.
class Spare {
 public:
  static constexpr std::uint64_t kAlignment = 256;
  static constexpr std::uint64_t aligned(std::uint64_t nbytes) {
    return (nbytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  Spare(Below& below, std::uint64_t budget);

  std::uint64_t segment_bytes() const { return segment_bytes_; }  // no place is longer
  // nullptr: there is no room. `foreseen`: for what nobody has asked for yet, which leaves some room.
  std::shared_ptr<Place> take(std::uint64_t nbytes, bool foreseen = false);

  // There is something to foresee: the first segment is taken with the next `grow`.
  void want();
  // A thread of the program's, inside of a call: takes more memory if that was wanted and is to be had.
  // Returns how much there is, if that has changed, else -1.
  std::int64_t grow();
  std::uint64_t held() const;  // bytes of the device
  std::uint64_t changes() const;  // another number once there is more room
  // Gives all that no place lies in back, wiped. `stream` is one of ours. Returns the bytes that are left.
  std::uint64_t release(std::int64_t stream);
  void close();  // no place is given any more

 private:
  friend class Place;
  struct Segment {
    std::uint8_t* data;
    std::map<std::uint64_t, std::uint64_t> free;  // offset to length, never two that touch
  };

  void give_back(std::uint8_t* data, std::uint64_t nbytes);
  bool device_has_room(std::uint64_t nbytes);

  Below& below_;
  const std::uint64_t budget_, segment_bytes_;
  mutable std::mutex mutex_;  // guards all below
  std::vector<Segment> segments_;
  std::uint64_t free_ = 0, changes_ = 0;
  bool wanted_ = false, growing_ = false, closed_ = false;
};

}  // namespace pipellm::prefetch
