# Perl's FFI::Platypus: the C library sorts by a Perl function, before and after a fork.
use strict;
use warnings;
use FFI::Platypus 2.00;

my $ffi = FFI::Platypus->new(api => 2, lib => [undef]);
$ffi->type('(opaque,opaque)->int' => 'compare');
$ffi->attach(qsort => ['sint64[300]', 'size_t', 'size_t', 'compare'] => 'void');
my @numbers = map { 7919 * $_ % 1009 } 0 .. 299;

sub sorts {
    my ($compare, $sign) = @_;
    my @array = @numbers;
    qsort(\@array, 300, 8, $compare);
    my @expected = sort { $sign * ($a <=> $b) } @numbers;
    return "@array" eq "@expected";
}

# The number that a pointer leads to.
sub at {
    return unpack 'q', unpack 'P8', pack 'J', $_[0];
}

sub compare {
    my ($sign) = @_;
    return $ffi->closure(sub { $sign * (at($_[0]) <=> at($_[1])) });
}

my @kept = map { compare(-1) } 1 .. 200;
sorts($kept[$_ * 40], -1) or die "at the start" for 0 .. 4;
my $child = fork;
defined $child or die "fork: $!";
if (!$child) {
    @kept = ();
    my @own = map { compare(1) } 1 .. 200;
    sorts($own[$_ * 40], 1) or die "in the child" for 0 .. 4;
    exit 0;
}
waitpid $child, 0;
$? == 0 or die "in the child";
sorts($kept[$_ * 40], -1) or die "after the child" for 0 .. 4;
my @more = map { compare(1) } 1 .. 3000;
sorts($more[$_ * 500], 1) or die "more" for 0 .. 5;
print "right\n";
