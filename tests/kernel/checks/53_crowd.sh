# What ten, a thousand and a hundred thousand admitted programs cost, and that a load takes no
# longer because of them: hash look-ups, where a search would take ten thousand times as long.
# kernels: 6.12
prints "ten" 'crowd 10:' crowd 10
few=$(sed -n 's/.*nobody.s \([0-9]*\) us.*/\1/p' $out)
prints "a thousand" 'crowd 1000:' crowd 1000
prints "a hundred thousand" 'crowd 100000:' crowd 100000
many=$(sed -n 's/.*nobody.s \([0-9]*\) us.*/\1/p' $out)
check "a load costs the same ($few us, $many us)" test "$many" -lt $((few * 3))
