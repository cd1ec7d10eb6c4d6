// Reads rules as Prometheus does: expressions, templates and durations; tells what is wrong of them.
package main

import (
	"fmt"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
)

func main() {
	wrong := false
	for _, path := range os.Args[1:] {
		_, problems := rulefmt.ParseFile(path, false, model.UTF8Validation)
		for _, problem := range problems {
			fmt.Fprintln(os.Stderr, problem)
			wrong = true
		}
	}
	if wrong {
		os.Exit(1)
	}
}
