// The thread team: every part once in every round, quiet when asked, whole after an exception. Meant to run
// under ThreadSanitizer too.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <thread>
#include <vector>

#include "../src/team.hpp"

namespace {

size_t passed = 0;
size_t failed = 0;

void check(bool holds, const char *expression, int line) {
    if (holds) {
        ++passed;
        return;
    }
    ++failed;
    std::printf("FAILED line %d: %s\n", line, expression);
}

#define CHECK(expression) check((expression), #expression, __LINE__)

void test_every_part_once_in_every_round() {
    for (size_t threads = 1; threads <= 5; ++threads) {
        bnb::Team team(threads);
        CHECK(team.threads() == threads);
        std::vector<size_t> counts(threads, 0); // plain: the barrier is what orders the accesses
        bool once = true;
        for (size_t round = 1; round <= 400; ++round) {
            team.run([&](size_t part) { ++counts[part]; });
            for (const size_t count : counts) {
                once = once && count == round;
            }
            if (round % 50 == 0) {
                team.quiesce();
            }
            if (round % 100 == 0) { // longer than anybody spins
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            }
        }
        CHECK(once);
    }
}

void test_slow_helpers_are_waited_for() {
    bnb::Team team(3);
    std::vector<int> done(3, 0);
    team.run([&](size_t part) {
        std::this_thread::sleep_for(std::chrono::milliseconds(part == 0 ? 0 : 5));
        done[part] = 1;
    });
    CHECK(done[0] + done[1] + done[2] == 3);
}

// A part keeps its thread until every other part is done: whoever did not come, the others do it.
void test_nobody_is_waited_for_who_has_not_begun() {
    bnb::Team team(3);
    for (int round = 0; round < 50; ++round) {
        std::atomic<size_t> done{0};
        team.run([&](size_t part) {
            while (part == 0 && done.load() < 2) {
                std::this_thread::yield();
            }
            ++done;
        });
        CHECK(done == 3);
    }
}

void test_exceptions_reach_the_caller() {
    bnb::Team team(3);
    for (size_t bad = 0; bad < 3; ++bad) {
        std::atomic<size_t> others{0};
        bool caught = false;
        try {
            team.run([&](size_t part) {
                if (part == bad) {
                    throw std::runtime_error("planted");
                }
                ++others;
            });
        } catch (const std::runtime_error &) {
            caught = true;
        }
        CHECK(caught && others == 2);
        others = 0;
        team.run([&](size_t) { ++others; });
        CHECK(others == 3);
    }
}

void test_sharing() {
    const auto two = bnb::Team::shared(2), again = bnb::Team::shared(2), three = bnb::Team::shared(3);
    CHECK(two == again && two != three && three->threads() == 3);
    bnb::quiesce_teams();
    // Several callers of one team take turns.
    std::vector<std::thread> callers;
    std::vector<size_t> sums(4, 0);
    for (size_t caller = 0; caller < 4; ++caller) {
        callers.emplace_back([&, caller] {
            for (int round = 0; round < 200; ++round) {
                size_t parts[2] = {0, 0};
                two->run([&](size_t part) { parts[part] = 1; });
                sums[caller] += parts[0] + parts[1];
            }
        });
    }
    for (int i = 0; i < 20; ++i) {
        bnb::quiesce_teams();
    }
    for (std::thread &caller : callers) {
        caller.join();
    }
    CHECK(sums == std::vector<size_t>(4, 400));
}

void test_shares() {
    for (size_t n = 0; n < 20; ++n) {
        for (size_t parts = 1; parts < 6; ++parts) {
            size_t next = 0;
            bool even = true;
            for (size_t part = 0; part < parts; ++part) {
                const bnb::Share share = bnb::share_of(n, part, parts);
                even = even && share.begin == next && share.end - share.begin <= n / parts + 1;
                next = share.end;
            }
            CHECK(even && next == n);
        }
    }
}

} // namespace

int main() {
    test_every_part_once_in_every_round();
    test_slow_helpers_are_waited_for();
    test_nobody_is_waited_for_who_has_not_begun();
    test_exceptions_reach_the_caller();
    test_sharing();
    test_shares();
    std::printf("team: %zu passed, %zu failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
