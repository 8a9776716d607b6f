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
    begun_.reset(new std::atomic<bool>[helpers + 1]);
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
    open_round();
    for (std::thread &helper : helpers_) {
        helper.join();
    }
}

// Opens a round, or says the end. Sequentially consistent against a helper that counts itself parked and then
// looks at the state once more: one of the two sees the other.
void Team::open_round() noexcept {
    state_.fetch_add(kRound);
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
    for (size_t part = 0; part < threads(); ++part) {
        begun_[part].store(false, std::memory_order_relaxed);
    }
    quiet_.store(false, std::memory_order_relaxed);
    open_round();
    do_parts(0);
    state_.fetch_add(kRound); // closed
    wait_for_helpers();
    if (thrown_ != nullptr) {
        std::rethrow_exception(std::exchange(thrown_, nullptr));
    }
}

void Team::do_parts(size_t first) noexcept {
    for (size_t i = 0; i < threads(); ++i) {
        const size_t part = (first + i) % threads();
        if (begun_[part].load(std::memory_order_relaxed) ||
            begun_[part].exchange(true, std::memory_order_relaxed)) {
            continue;
        }
        try {
            call_.function(call_.work, part);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(sleep_);
            if (thrown_ == nullptr) {
                thrown_ = std::current_exception();
            }
        }
    }
}

void Team::wait_for_helpers() noexcept {
    for (unsigned spins = 0; spins < kSpins; ++spins) {
        if (empty()) {
            return;
        }
        relax();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    caller_sleeps_.store(true);
    wake_caller_.wait(lock, [this] { return empty(); });
    caller_sleeps_.store(false);
}

// The number of a round that is open and not `seen`, or 0.
uint64_t Team::opened(uint64_t seen) const noexcept {
    const uint64_t round = state_.load() / kRound;
    return round % 2 == 1 && round != seen ? round : 0;
}

// The number of the next open round; parks after a while without one.
uint64_t Team::wait_for_round(uint64_t seen) noexcept {
    for (unsigned spins = 0; spins < kSpins && !quiet_.load(std::memory_order_relaxed); ++spins) {
        if (const uint64_t round = opened(seen)) {
            return round;
        }
        relax();
    }
    uint64_t round = 0;
    std::unique_lock<std::mutex> lock(sleep_);
    parked_.fetch_add(1);
    wake_helpers_.wait(lock, [&] { return (round = opened(seen)) != 0; });
    parked_.fetch_sub(1);
    return round;
}

// Counts this helper in, unless the round was closed meanwhile.
bool Team::enter(uint64_t round) noexcept {
    uint64_t state = state_.load();
    while (state / kRound == round) {
        if (state_.compare_exchange_weak(state, state + 1)) {
            return true;
        }
    }
    return false;
}

void Team::help(size_t part) noexcept {
    for (uint64_t round = 0;;) {
        round = wait_for_round(round);
        if (ended_.load(std::memory_order_relaxed)) {
            return;
        }
        if (!enter(round)) {
            continue;
        }
        do_parts(part);
        if (state_.fetch_sub(1) % kRound == 1 && caller_sleeps_.load()) {
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
