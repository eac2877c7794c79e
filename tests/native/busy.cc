// C++ that runs for ever: templates, callbacks, virtual calls, exceptions, the standard library.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct Shape {
    virtual ~Shape() = default;
    virtual long measure(int x) const = 0;
};
struct Square : Shape {
    long measure(int x) const override
    {
        if (x % 50 == 0) {
            throw std::runtime_error("fifty");
        }
        return (long)x * x;
    }
};

static __attribute__((noinline)) long walk(Shape const &shape, std::function<int(int)> const &next,
                                           int depth)
{
    long below = depth > 0 ? walk(shape, next, depth - 1) : 0;
    return below + shape.measure(next(depth));
}

int main()
{
    Square square;
    volatile long total = 0;
    std::cout << "ready" << std::endl;
    for (int round = 1;; round++) {
        std::map<std::string, int> numbers;
        std::vector<std::string> words;
        for (int i = 0; i < 20; i++) {
            numbers["key" + std::to_string(i * 7 % 10)] = i;
            words.push_back(std::to_string(i * i * round));
        }
        std::sort(words.begin(), words.end(), [&](auto const &one, auto const &other) {
            return numbers.count(one) ? one < other : one.size() * 7 % 5 < other.size() * 7 % 5;
        });
        try {
            total = total + walk(square, [&](int x) { return x + round % 60; }, 12);
        } catch (std::exception const &) {
            total = total + 1;
        }
    }
}
