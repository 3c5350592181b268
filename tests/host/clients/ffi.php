<?php
// PHP's FFI: the C library sorts by a PHP function.
$libc = FFI::cdef(
    "typedef int (*compare)(const long *a, const long *b);
     void qsort(long *base, size_t count, size_t size, compare by);"
);
$numbers = array_map(fn($n) => 7919 * $n % 1009, range(0, 999));
for ($round = 0; $round < 20; $round++) {
    $sign = $round % 2 ? 1 : -1;
    $array = $libc->new("long[1000]");
    foreach ($numbers as $n => $number) {
        $array[$n] = $number;
    }
    $libc->qsort(FFI::addr($array[0]), 1000, 8, fn($a, $b) => $sign * ($a[0] <=> $b[0]));
    $sorted = [];
    foreach ($array as $number) {
        $sorted[] = $number;
    }
    $expected = $numbers;
    $sign > 0 ? sort($expected) : rsort($expected);
    if ($sorted !== $expected) {
        fwrite(STDERR, "round $round is wrong\n");
        exit(1);
    }
}
echo "right\n";
