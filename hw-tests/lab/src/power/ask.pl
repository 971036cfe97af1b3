#!/usr/bin/perl
# Asks the lab: `ask SOCKET WORD...` sends one line and prints the answer; `ask SOCKET -` passes lines on both ways
# until either side ends. Never waits for more than ten seconds for one answer: ipmi_sim stands still while this runs.
use strict;
use warnings;
use IO::Select;
use IO::Socket::UNIX;

alarm 10;
my $path = shift @ARGV;
my $desk = IO::Socket::UNIX->new(Peer => $path) or die "cannot reach $path: $!\n";
if ("@ARGV" ne "-") {
    print $desk "@ARGV\n" or die "cannot ask $path: $!\n";
    $desk->flush;
    my $head = <$desk>;
    die "no answer from $path\n" unless defined $head;
    die "not done: $head" unless $head eq "ok\n";
    $desk->shutdown(1);
    print while <$desk>;
    exit 0;
}
alarm 0;
my %to = (fileno(STDIN) => $desk, fileno($desk) => \*STDOUT);
my $both = IO::Select->new(\*STDIN, $desk);
while (1) {
    for my $from ($both->can_read) {
        my $got = sysread $from, my $bytes, 4096;
        exit 0 unless $got;
        while (length $bytes) {
            my $put = syswrite $to{fileno $from}, $bytes;
            exit 0 unless $put;
            substr $bytes, 0, $put, "";
        }
    }
}
