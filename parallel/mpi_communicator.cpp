#include "parallel/mpi_communicator.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "parallel/deadline.h"
#include "parallel/trace.h"
#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

// One test of a piece adds up at most this much, and MPI's counts are ints.
constexpr int64_t kPieceBytes = 4 << 20;

MPI_Datatype type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return MPI_FLOAT;
    case at::kDouble:
      return MPI_DOUBLE;
    case at::kInt:
      return MPI_INT32_T;
    case at::kLong:
      return MPI_INT64_T;
    case at::kByte:
      return MPI_UINT8_T;
    default:
      TEMPER_CHECK(false, std::string("MPI cannot add ") + at::toString(tensor.scalar_type()));
      return MPI_DATATYPE_NULL;
  }
}

MPI_Op op_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return MPI_SUM;
    case ReduceOp::kMax:
      return MPI_MAX;
    case ReduceOp::kMin:
      return MPI_MIN;
  }
  return MPI_OP_NULL;
}

void check_tensor(const at::Tensor& tensor) {
  TEMPER_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(),
               "MPI takes contiguous CPU tensors");
}

char* bytes_of(const at::Tensor& tensor) { return static_cast<char*>(tensor.data_ptr()); }

/// A run of [0, total) in pieces.
struct Pieces {
  int64_t total;
  int64_t length;
  int64_t count() const { return (total + length - 1) / length; }
  int64_t begin(int64_t piece) const { return piece * length; }
  int size(int64_t piece) const { return static_cast<int>(std::min(length, total - begin(piece))); }
};

/// Pieces of `total` elements such that `parallel` of them (one a rank) make at most kPieceBytes.
Pieces cut(int64_t total, int64_t element_bytes, int64_t parallel = 1) {
  return {total, std::max<int64_t>(1, kPieceBytes / (element_bytes * parallel))};
}

/// `count` bytes at the start of blocks that are `block` bytes apart: a column of pieces, one of
/// each rank's block.
class Column {
 public:
  Column(int count, int64_t block) {
    MPI_Datatype run = MPI_DATATYPE_NULL;
    TEMPER_MPI(MPI_Type_contiguous(count, MPI_BYTE, &run));
    TEMPER_MPI(MPI_Type_create_resized(run, 0, block, &type_));
    TEMPER_MPI(MPI_Type_commit(&type_));
    MPI_Type_free(&run);
  }
  ~Column() { MPI_Type_free(&type_); }  // MPI keeps it for what is under way
  Column(const Column&) = delete;
  Column& operator=(const Column&) = delete;
  MPI_Datatype type() const { return type_; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(std::shared_ptr<MpiEngine> engine, MPI_Comm group, std::string name,
                  double timeout_seconds)
      : engine_(std::move(engine)),
        group_(group),
        name_(std::move(name)),
        timeout_seconds_(timeout_seconds),
        engine_group_(engine_->new_group()) {
    TEMPER_MPI(MPI_Comm_rank(group_, &rank_));
    TEMPER_MPI(MPI_Comm_size(group_, &size_));
    find_peers();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override { return name_; }

  WorkPtr all_reduce(at::Tensor& tensor, ReduceOp op) override {
    check_tensor(tensor);
    const MPI_Datatype type = type_of(tensor);
    const int64_t width = tensor.element_size();
    const Pieces pieces = cut(tensor.numel(), width);
    return collective("all_reduce", pieces.count(), {tensor},
                      [=, group = group_, data = bytes_of(tensor), how = op_of(op)](int64_t piece) {
                        MPI_Request request;
                        TEMPER_MPI(MPI_Iallreduce(MPI_IN_PLACE, data + pieces.begin(piece) * width,
                                                  pieces.size(piece), type, how, group, &request));
                        return request;
                      });
  }

  WorkPtr reduce_scatter(at::Tensor& output, const at::Tensor& input) override {
    check_blocks(output, input);
    const MPI_Datatype type = type_of(input);
    const Pieces pieces = cut(output.numel(), output.element_size(), size_);
    // MPI adds no columns: a piece of each rank's block is copied together first. Pieces end in
    // order, so the copies of the few that are under way at once can be kept in turn.
    auto copies = std::make_shared<std::vector<at::Tensor>>(pieces.count());
    return collective(
        "reduce_scatter", pieces.count(), {output, input},
        [=, group = group_, size = size_, source = input.view({size_, -1}), data = bytes_of(output),
         width = output.element_size()](int64_t piece) {
          at::Tensor& copy = (*copies)[piece];
          copy = source.narrow(1, pieces.begin(piece), pieces.size(piece)).contiguous();
          if (piece >= kCopiesKept) (*copies)[piece - kCopiesKept].reset();
          MPI_Request request;
          TEMPER_MPI(MPI_Ireduce_scatter_block(bytes_of(copy), data + pieces.begin(piece) * width,
                                               pieces.size(piece), type, MPI_SUM, group, &request));
          return request;
        });
  }

  WorkPtr all_gather(at::Tensor& output, const at::Tensor& input) override {
    check_blocks(input, output);
    const int64_t block = input.nbytes();
    const Pieces pieces = cut(block, 1, size_);
    return collective(
        "all_gather", pieces.count(), {output, input},
        [=, group = group_, from = bytes_of(input), to = bytes_of(output)](int64_t piece) {
          const Column column(pieces.size(piece), block);
          MPI_Request request;
          TEMPER_MPI(MPI_Iallgather(from + pieces.begin(piece), pieces.size(piece), MPI_BYTE,
                                    to + pieces.begin(piece), 1, column.type(), group, &request));
          return request;
        });
  }

  WorkPtr broadcast(at::Tensor& tensor, int root) override {
    check_tensor(tensor);
    const Pieces pieces = cut(static_cast<int64_t>(tensor.nbytes()), 1);
    return collective("broadcast", pieces.count(), {tensor},
                      [=, group = group_, data = bytes_of(tensor)](int64_t piece) {
                        MPI_Request request;
                        TEMPER_MPI(MPI_Ibcast(data + pieces.begin(piece), pieces.size(piece),
                                              MPI_BYTE, root, group, &request));
                        return request;
                      });
  }

  WorkPtr all_to_all(at::Tensor& output, const at::Tensor& input) override {
    check_tensor(output);
    check_tensor(input);
    TEMPER_CHECK(output.nbytes() == input.nbytes() && input.numel() % size_ == 0,
                 "all_to_all takes two tensors of one block a rank");
    const int64_t block = static_cast<int64_t>(input.nbytes()) / size_;
    const Pieces pieces = cut(block, 1, size_);
    return collective(
        "all_to_all", pieces.count(), {output, input},
        [=, group = group_, from = bytes_of(input), to = bytes_of(output)](int64_t piece) {
          const Column column(pieces.size(piece), block);
          MPI_Request request;
          TEMPER_MPI(MPI_Ialltoall(from + pieces.begin(piece), 1, column.type(),
                                   to + pieces.begin(piece), 1, column.type(), group, &request));
          return request;
        });
  }

  WorkPtr send(const at::Tensor& tensor, int peer, int tag) override {
    check_tensor(tensor);
    const Pieces pieces = cut(static_cast<int64_t>(tensor.nbytes()), 1);
    return submit("send to rank " + std::to_string(peer), 0, pieces.count(), {tensor},
                  [=, group = group_, data = bytes_of(tensor)](int64_t piece) {
                    MPI_Request request;
                    TEMPER_MPI(MPI_Isend(data + pieces.begin(piece), pieces.size(piece), MPI_BYTE,
                                         peer, tag, group, &request));
                    return request;
                  });
  }

  WorkPtr receive(at::Tensor& tensor, int peer, int tag) override {
    check_tensor(tensor);
    const Pieces pieces = cut(static_cast<int64_t>(tensor.nbytes()), 1);
    return submit("receive from rank " + std::to_string(peer), 0, pieces.count(), {tensor},
                  [=, group = group_, data = bytes_of(tensor)](int64_t piece) {
                    MPI_Request request;
                    TEMPER_MPI(MPI_Irecv(data + pieces.begin(piece), pieces.size(piece), MPI_BYTE,
                                         peer, tag, group, &request));
                    return request;
                  });
  }

  void barrier() override {
    collective("barrier", 1, {}, [group = group_](int64_t) {
      MPI_Request request;
      TEMPER_MPI(MPI_Ibarrier(group, &request));
      return request;
    })->wait();
  }

  void heed_peers() override { engine_->heed_peers(); }

  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) override {
    barrier();  // by now everybody is here
    const Deadline deadline("the split of group '" + name_ + "'", timeout_seconds_);
    MPI_Comm part = MPI_COMM_NULL;
    engine_->exclusively([&] { TEMPER_MPI(MPI_Comm_split(group_, color, key, &part)); });
    return make_mpi_communicator(engine_, part, name, timeout_seconds_);
  }

 private:
  using Start = std::function<MPI_Request(int64_t piece)>;
  static constexpr int64_t kCopiesKept = 2;  // more than the engine has under way at once

  class MpiWork : public Work {
   public:
    MpiWork(const MpiCommunicator& owner, std::shared_ptr<MpiOperation> operation)
        : engine_(owner.engine_),
          operation_(std::move(operation)),
          peers_(owner.peers_),
          timeout_seconds_(owner.timeout_seconds_) {}

    void wait() override {
      const TraceSpan span("exposed wait");
      engine_->wait_for_peers(*operation_, *peers_, timeout_seconds_);
    }
    bool done() override { return engine_->done(*operation_); }

   private:
    std::shared_ptr<MpiEngine> engine_;
    std::shared_ptr<MpiOperation> operation_;
    std::shared_ptr<const std::vector<int>> peers_;
    double timeout_seconds_;
  };

  // The group's other ranks, as the world counts them.
  void find_peers() {
    MPI_Group group = MPI_GROUP_NULL, world = MPI_GROUP_NULL;
    TEMPER_MPI(MPI_Comm_group(group_, &group));
    TEMPER_MPI(MPI_Comm_group(MPI_COMM_WORLD, &world));
    std::vector<int> peers;
    for (int rank = 0; rank < size_; ++rank) {
      if (rank == rank_) continue;
      TEMPER_MPI(MPI_Group_translate_ranks(group, 1, &rank, world, &peers.emplace_back()));
    }
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    peers_ = std::make_shared<const std::vector<int>>(std::move(peers));
  }

  WorkPtr submit(const std::string& what, int engine_group, int64_t pieces,
                 std::vector<at::Tensor> tensors, Start start) {
    auto operation = std::make_shared<MpiOperation>();
    operation->what = what + " in group '" + name_ + "'";
    operation->group = engine_group;
    operation->pieces = pieces;
    operation->start = std::move(start);
    operation->tensors = std::move(tensors);
    if (tracing()) operation->ended = traced(*operation);
    engine_->submit(operation);
    return std::make_unique<MpiWork>(*this, std::move(operation));
  }

  // Records the operation when it ends, under the name of the scope that submits it.
  std::function<void()> traced(const MpiOperation& operation) const {
    size_t bytes = 0;  // of the largest tensor: what a gather makes, or a reduction takes
    for (const at::Tensor& tensor : operation.tensors) bytes = std::max(bytes, tensor.nbytes());
    const std::string& label = TraceLabel::current();
    const std::string details =
        "\"collective\":\"" + operation.what + "\",\"bytes\":" + std::to_string(bytes);
    return [name = label.empty() ? operation.what : label, begin = trace_time(), details] {
      trace_operation("exchange", name, begin, details);
    };
  }

  WorkPtr collective(const char* name, int64_t pieces, std::vector<at::Tensor> tensors,
                     Start start) {
    return submit(name + (" " + std::to_string(++sequence_)), engine_group_, pieces,
                  std::move(tensors), std::move(start));
  }

  void check_blocks(const at::Tensor& block, const at::Tensor& all) const {
    check_tensor(block);
    check_tensor(all);
    TEMPER_CHECK(block.scalar_type() == all.scalar_type() && block.numel() * size_ == all.numel(),
                 "the larger tensor has one block of the smaller for each rank");
  }

  std::shared_ptr<MpiEngine> engine_;
  MPI_Comm group_;
  std::string name_;
  double timeout_seconds_;
  int engine_group_;
  int rank_ = 0;
  int size_ = 1;
  int64_t sequence_ = 0;
  std::shared_ptr<const std::vector<int>> peers_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(std::shared_ptr<MpiEngine> engine,
                                                    MPI_Comm group, const std::string& name,
                                                    double timeout_seconds) {
  return std::make_unique<MpiCommunicator>(std::move(engine), group, name, timeout_seconds);
}

}  // namespace temper::parallel
