"""Messages to ticks: the compiled decoder, the reference decoder, reasons of rejection, times."""
