// The program's ranks through MPI (tools/cli/ranks.h): a library of its own.
#include <mpi.h>

#include <algorithm>
#include <cstdio>

#include "tools/cli/ranks.h"

namespace {

constexpr int64_t kPiece = int64_t(1) << 30;  // MPI counts in ints
constexpr int kSize = 1, kBytes = 2;          // tags

int send(const char* bytes, int64_t count) {
  int code = MPI_Send(&count, 1, MPI_INT64_T, 0, kSize, MPI_COMM_WORLD);
  for (int64_t done = 0; done < count && code == MPI_SUCCESS; done += kPiece)
    code = MPI_Send(bytes + done, int(std::min(kPiece, count - done)), MPI_BYTE, 0, kBytes, MPI_COMM_WORLD);
  return code;
}

int receive_size(int from, int64_t* count) {
  return MPI_Recv(count, 1, MPI_INT64_T, from, kSize, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

int receive(int from, char* bytes, int64_t count) {
  int code = MPI_SUCCESS;
  for (int64_t done = 0; done < count && code == MPI_SUCCESS; done += kPiece)
    code = MPI_Recv(bytes + done, int(std::min(kPiece, count - done)), MPI_BYTE, from, kBytes, MPI_COMM_WORLD,
                    MPI_STATUS_IGNORE);
  return code;
}

int broadcast(char* bytes, int64_t count) { return MPI_Bcast(bytes, int(count), MPI_BYTE, 0, MPI_COMM_WORLD); }

void finish() { MPI_Finalize(); }
void abort_all(int code) { MPI_Abort(MPI_COMM_WORLD, code); }

SwitchbackRanks ranks = {switchback::kRanksVersion, 0, 1, 0, 1, send, receive_size, receive, broadcast, finish, abort_all};

}  // namespace

extern "C" const SwitchbackRanks* switchback_start_ranks(char* why, int why_bytes) {
  int provided = 0;
  // Only the main thread talks to MPI.
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED) {
    std::snprintf(why, size_t(why_bytes), "MPI cannot be started with threads");
    return nullptr;
  }
  MPI_Comm_rank(MPI_COMM_WORLD, &ranks.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks.count);
  MPI_Comm here;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
  MPI_Comm_rank(here, &ranks.local_rank);
  MPI_Comm_size(here, &ranks.local_count);
  MPI_Comm_free(&here);
  return &ranks;
}
