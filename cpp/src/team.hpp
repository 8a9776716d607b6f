// A team of threads that work on one thing at a time: the caller and `threads - 1` helpers.
//
//     run(work):   write the work down, open the round, wake the helpers that are parked
//                  the caller begins with part 0, helper i with part i; then each does what nobody has begun
//                  close the round, wait until no helper is in it
//     a helper:    watch for an open round: spin a bounded while, then park
//
// A decoded token crosses such a barrier more than a hundred times, so a helper that parked at once would
// cost more than it gives; one that spun for ever would take the CPU from whoever needs it. Hence the bound.
// A helper that a busy machine keeps waiting is not waited for: its part is done without it.
// Which part computes what is the business of the work, and so are the same bits for any number of threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace bnb {

class Team {
  public:
    // The team of `threads` (at least 1) in all, shared by everybody in this process who asks for that many;
    // it ends with its last user. std::bad_alloc and std::system_error may leave it.
    static std::shared_ptr<Team> shared(size_t threads);

    explicit Team(size_t threads);
    ~Team();
    Team(const Team &) = delete;
    Team &operator=(const Team &) = delete;

    // Threads of the team, the caller included.
    size_t threads() const { return helpers_.size() + 1; }

    // Calls work(part) once for each part below threads(), on whatever threads, and returns when all are
    // done. Allocates nothing. What a part threw leaves here, after all are done. One run at a time: a second
    // caller waits. `work` must not run the same team.
    template <class Work> void run(const Work &work) {
        run_erased(
            {&work, [](const void *erased, size_t part) { (*static_cast<const Work *>(erased))(part); }});
    }

    // Returns when every helper is parked; they wake for the next run.
    void quiesce() noexcept;

  private:
    struct Call {
        const void *work;
        void (*function)(const void *work, size_t part);
    };

    void run_erased(const Call &call);
    void do_parts(size_t first) noexcept;
    void open_round() noexcept;
    void wait_for_helpers() noexcept;
    void help(size_t part) noexcept;
    bool enter(uint64_t round) noexcept;
    uint64_t opened(uint64_t seen) const noexcept;
    uint64_t wait_for_round(uint64_t seen) noexcept;
    bool empty() const noexcept { return state_.load() % kRound == 0; }
    void end() noexcept;

    std::mutex turn_;                            // held by the one that runs or quiesces
    Call call_ = {};                             // written while the round is closed and no helper in it
    std::unique_ptr<std::atomic<bool>[]> begun_; // parts of the round

    // The number of the round, odd while it is open, times kRound, and the helpers in it: none enters a
    // closed one.
    static constexpr uint64_t kRound = uint64_t{1} << 32;
    std::atomic<uint64_t> state_{0};
    std::atomic<size_t> parked_{0}; // helpers that sleep or are about to
    std::atomic<bool> caller_sleeps_{false};
    std::atomic<bool> quiet_{false}; // helpers park at once
    std::atomic<bool> ended_{false};

    std::mutex sleep_; // guards going to sleep, and `thrown_`
    std::condition_variable wake_helpers_;
    std::condition_variable wake_caller_;
    std::exception_ptr thrown_; // by the first part that failed
    std::vector<std::thread> helpers_;
};

// Returns when every helper of every shared team is parked.
void quiesce_teams() noexcept;

// What part `part` of `parts` takes of `n` things: [begin, end), in order, as even as it goes.
struct Share {
    size_t begin;
    size_t end;
};
inline Share share_of(size_t n, size_t part, size_t parts) {
    const size_t each = n / parts, rest = n % parts;
    const size_t begin = part * each + (part < rest ? part : rest);
    return {begin, begin + each + (part < rest ? 1 : 0)};
}

} // namespace bnb
