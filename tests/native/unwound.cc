// C++ whose stacks are to be unwound: templates of the library, virtual calls, exceptions in flight.
#include <algorithm>
#include <csignal>
#include <functional>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Shape {
    virtual ~Shape() {}
    virtual int area(int side) = 0;
};

struct Square : Shape {
    int area(int side) override
    {
        if (side > 6) {
            throw std::runtime_error("too big");
        }
        return side * side;
    }
};

static int walk(Shape &shape, std::function<int(int)> const &last, int depth)
{
    return depth == 0 ? last(1) : walk(shape, last, depth - 1) + shape.area(depth);
}

int main()
{
    Square square;
    long total = 0;
    raise(SIGSTOP);
    for (int round = 0; round < 1000; round++) {
        std::map<std::string, int> numbers;
        std::vector<std::string> words;
        for (int i = 0; i < 10; i++) {
            numbers["key" + std::to_string(i * 7 % 10)] = i;
            words.push_back(std::to_string(i * i));
        }
        std::sort(words.begin(), words.end(), [&](auto const &one, auto const &other) {
            return numbers.count(one) ? one < other : one.size() < other.size();
        });
        try {
            total += walk(square, [&](int x) { return x + (int)numbers.size(); }, 9);
        } catch (std::exception const &) {
            total++;
        }
        std::ostringstream text;
        text << total << words[0] << 1.5;
        total += (long)text.str().size();
    }
    return (int)(total & 1);
}
