// Nothing runs this.
func.func private @f()
