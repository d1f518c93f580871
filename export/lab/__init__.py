"""``mlpx lab``: one page on which faults are planted into a small network, beside four checks that may notice them."""
