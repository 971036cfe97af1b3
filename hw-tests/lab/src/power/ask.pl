#!/usr/bin/perl
# Asks the lab: `ask SOCKET WORD...` sends one line and prints the answer; `ask SOCKET -` passes lines on both ways
# for as long as the program that started it wants. Never waits for more than ten seconds for one answer: ipmi_sim
# stands still while this runs.
use strict;
use warnings;
use IO::Socket::UNIX;

alarm 10;
my $path = shift @ARGV;
my $desk = IO::Socket::UNIX->new(Peer => $path) or die "cannot reach $path: $!\n";
$desk->autoflush(1);
if ("@ARGV" ne "-") {
    print $desk "@ARGV\n" or die "cannot ask $path: $!\n";
    my $head = <$desk>;
    die "no answer from $path\n" unless defined $head;
    die "not done: $head" unless $head eq "ok\n";
    $desk->shutdown(1);
    print while <$desk>;
    exit 0;
}
$| = 1;
my $out = fork;
die "cannot fork: $!\n" unless defined $out;
alarm 0;
# Whichever side ends first takes the other with it.
if ($out == 0) {
    while (my $line = <$desk>) { print $line or last; }
    kill "TERM", getppid;
    exit 0;
}
while (my $line = <STDIN>) { print $desk $line or last; }
kill "TERM", $out;
waitpid $out, 0;
