/* A variable of threads with a destructor. */
extern "C" void ended(int);
struct Guard {
	int number;
	Guard() : number(7) {}
	~Guard() { ended(number); }
};
static thread_local Guard guard;
extern "C" int touch(int x) { return guard.number += x; }
