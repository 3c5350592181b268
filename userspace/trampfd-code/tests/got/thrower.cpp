struct Problem { int number; };
template <typename T> T limit(T x) { static T most = 10; if (x > most) throw Problem{(int)x}; return x; }
int check(int x) { return limit(x); }
