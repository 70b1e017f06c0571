// What the program asks of MPI: a table of functions in a library of its own (libswitchback_mpi.so), so that the program
// starts where no MPI is. The library is loaded only in processes that mpirun or srun has started.
#pragma once

#include <cstdint>

extern "C" {

struct SwitchbackRanks {
  int version;
  int rank, count;
  int local_rank, local_count;  // among those of the same machine
  // Rank 0 receives what rank `from` sends: first how many bytes, then these. 0 done, else an MPI error.
  int (*send)(const char* bytes, int64_t count);
  int (*receive_size)(int from, int64_t* count);
  int (*receive)(int from, char* bytes, int64_t count);
  int (*broadcast)(char* bytes, int64_t count);  // of rank 0, to all
  void (*finish)(void);     // waits for all
  void (*abort)(int code);  // ends all
};

// Null, with `why`, where MPI cannot be started.
const SwitchbackRanks* switchback_start_ranks(char* why, int why_bytes);
}

namespace switchback {
inline constexpr int kRanksVersion = 2;
}
