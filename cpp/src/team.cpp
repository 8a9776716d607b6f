// The thread team of team.hpp, over a mutex and two condition variables: they are touched only by those who
// go to sleep and by those who find somebody asleep.

#include "team.hpp"

#include <map>
#include <utility>

namespace bnb {
namespace {

// Looks at the round before a thread parks: some tens of microseconds.
constexpr unsigned kSpins = 2000;

inline void relax() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

struct Registry {
    std::mutex mutex;
    std::map<size_t, std::weak_ptr<Team>> teams; // by size
};

Registry &registry() {
    static Registry instance;
    return instance;
}

} // namespace

std::shared_ptr<Team> Team::shared(size_t threads) {
    Registry &all = registry();
    const std::lock_guard<std::mutex> lock(all.mutex);
    std::weak_ptr<Team> &entry = all.teams[threads];
    std::shared_ptr<Team> team = entry.lock();
    if (team == nullptr) {
        team = std::make_shared<Team>(threads);
        entry = team;
    }
    return team;
}

void quiesce_teams() noexcept {
    Registry &all = registry();
    // One team at a time and never under the lock: a team that ends here joins its helpers.
    size_t above = 0;
    while (true) {
        std::shared_ptr<Team> team;
        {
            const std::lock_guard<std::mutex> lock(all.mutex);
            for (auto at = all.teams.upper_bound(above); at != all.teams.end() && team == nullptr; ++at) {
                above = at->first;
                team = at->second.lock();
            }
        }
        if (team == nullptr) {
            return;
        }
        team->quiesce();
    }
}

Team::Team(size_t threads) {
    const size_t helpers = threads > 1 ? threads - 1 : 0;
    helpers_.reserve(helpers);
    try {
        for (size_t part = 1; part <= helpers; ++part) {
            helpers_.emplace_back([this, part] { help(part); });
        }
    } catch (...) {
        end();
        throw;
    }
}

Team::~Team() {
    end();
}

void Team::end() noexcept {
    ended_.store(true, std::memory_order_relaxed);
    raise_round();
    for (std::thread &helper : helpers_) {
        helper.join();
    }
}

// Starts a round, or the end. Sequentially consistent against a helper that counts itself parked and then
// looks at the round once more: one of the two sees the other.
void Team::raise_round() noexcept {
    round_.fetch_add(1);
    if (parked_.load() != 0) {
        {
            const std::lock_guard<std::mutex> lock(sleep_);
        }
        wake_helpers_.notify_all();
    }
}

void Team::run_erased(const Call &call) {
    if (helpers_.empty()) {
        call.function(call.work, 0);
        return;
    }
    const std::lock_guard<std::mutex> turn(turn_);
    call_ = call;
    busy_.store(helpers_.size(), std::memory_order_relaxed);
    quiet_.store(false, std::memory_order_relaxed);
    raise_round();
    do_part(0);
    wait_for_helpers();
    if (thrown_ != nullptr) {
        std::rethrow_exception(std::exchange(thrown_, nullptr));
    }
}

void Team::do_part(size_t part) noexcept {
    try {
        call_.function(call_.work, part);
    } catch (...) {
        const std::lock_guard<std::mutex> lock(sleep_);
        if (thrown_ == nullptr) {
            thrown_ = std::current_exception();
        }
    }
}

void Team::wait_for_helpers() noexcept {
    for (unsigned spins = 0; spins < kSpins; ++spins) {
        if (busy_.load(std::memory_order_acquire) == 0) {
            return;
        }
        relax();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    caller_sleeps_.store(true);
    wake_caller_.wait(lock, [this] { return busy_.load() == 0; });
    caller_sleeps_.store(false);
}

// Returns when the round is no longer `seen`; false: the team ends.
bool Team::wait_for_round(uint32_t seen) noexcept {
    for (unsigned spins = 0; spins < kSpins && !quiet_.load(std::memory_order_relaxed); ++spins) {
        if (round_.load(std::memory_order_acquire) != seen) {
            return !ended_.load(std::memory_order_relaxed);
        }
        relax();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    parked_.fetch_add(1);
    wake_helpers_.wait(lock, [this, seen] { return round_.load() != seen; });
    parked_.fetch_sub(1);
    return !ended_.load(std::memory_order_relaxed);
}

void Team::help(size_t part) noexcept {
    for (uint32_t seen = 0; wait_for_round(seen); ++seen) {
        do_part(part);
        if (busy_.fetch_sub(1) == 1 && caller_sleeps_.load()) {
            {
                const std::lock_guard<std::mutex> lock(sleep_);
            }
            wake_caller_.notify_one();
        }
    }
}

void Team::quiesce() noexcept {
    const std::lock_guard<std::mutex> turn(turn_);
    quiet_.store(true, std::memory_order_relaxed);
    while (parked_.load() != helpers_.size()) {
        std::this_thread::yield();
    }
}

} // namespace bnb
