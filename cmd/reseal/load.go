package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/reseal-bft/reseal/internal/cluster"
	"github.com/reseal-bft/reseal/internal/files"
	"github.com/reseal-bft/reseal/internal/load"
	"github.com/reseal-bft/reseal/internal/progress"
)

// loading is what `reseal load` is told.
type loading struct {
	dir     string
	options load.Options
	client  load.Client // how each one reads
	output  reportOutput
}

// reportOutput says where a report goes.
type reportOutput struct{ json, plot string }

func (o *reportOutput) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.json, "json", "", "write the report with its histograms as JSON to this file; - for standard output, instead of the table")
	cmd.Flags().StringVar(&o.plot, "plot", "", "draw latency over time and by percentile, and the rate, into this directory (SVG)")
}

func (o *reportOutput) write(stdout io.Writer, report *load.Report) error {
	var errs []error
	if o.plot != "" {
		errs = append(errs, report.WritePlots(o.plot))
	}
	if o.json != "-" {
		errs = append(errs, report.WriteTable(stdout))
	}
	return errors.Join(append(errs, writeJSON(stdout, o.json, report))...)
}

func newLoadCommand() *cobra.Command {
	l := loading{options: load.Options{Plan: load.Plan{Values: load.Exactly(128), Envelope: load.Exactly(1)}}}
	plan := &l.options.Plan
	cmd := &cobra.Command{
		Use:   "load --dir CLUSTER",
		Short: "Ask a cluster for reads and writes, and measure what becomes of them",
		Long: `Load puts a cluster under load and measures it: as much as its clients get, each asking again when it has its answer, or with --rate as many operations
a second, whatever the cluster does; latency is then counted from when an operation was due. Every reply is verified under the group public key. The exit status
is 0 only if every operation was answered.

Reads are made as "get" makes them: linearizable by a quorum's word, with --ordered as operations, with --max-age of one replica. With --ordered an envelope's
reads are one request, otherwise each is a call.

With --check what the clients saw is recorded, and porcupine judges whether it is linearizable. Several machines measure one cluster together when each
writes --json and the files are merged by "reseal load merge".`,
		Example: `  reseal load --dir CLUSTER
  reseal load --dir CLUSTER --rate 500 --reads 0.9 --values 64-4K --duration 5m --plot plots
  reseal load --dir CLUSTER --keys 100 --check`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return l.run(cmd) },
	}
	flags := cmd.Flags()
	addDir(cmd, &l.dir, "directory of the cluster")
	flags.IntVar(&plan.Clients, "clients", 16, "clients, each with a key of its own")
	flags.IntVar(&plan.InFlight, "in-flight", 1, "requests that each client has under way, without --rate")
	flags.Float64Var(&plan.Rate, "rate", 0, "operations due per second, of all clients together (default: as many as the clients get)")
	flags.Float64Var(&plan.Reads, "reads", 0.5, "fraction of the requests that read")
	flags.Var(&plan.Values, "values", "bytes of a value, such as 128 or 64-4K")
	flags.Var(&plan.Envelope, "envelope", "operations of one signed request, such as 1 or 1-100")
	flags.IntVar(&plan.Keys, "keys", 10_000, "keys, shared by all clients; 0: a new key with every write, and reads of what the client wrote")
	flags.DurationVar(&plan.Duration, "duration", 30*time.Second, "how long operations become due")
	flags.DurationVar(&plan.Timeout, "timeout", 30*time.Second, "how long a request is waited for before it has failed")
	flags.BoolVar(&l.client.Ordered, "ordered", false, "read as operations in the order of all others")
	flags.DurationVar(&l.client.MaxAge, "max-age", 0, "read from one replica, and accept a certified state of this age")
	flags.BoolVar(&l.options.Check, "check", false, "record what the clients see, and have porcupine judge whether it is linearizable")
	l.output.addFlags(cmd)
	cmd.AddCommand(newLoadMergeCommand())
	return cmd
}

func (l *loading) run(cmd *cobra.Command) (err error) {
	plan := &l.options.Plan
	switch {
	case plan.Duration <= 0 || plan.Timeout <= 0:
		return fmt.Errorf("--duration %v, --timeout %v: give times", plan.Duration, plan.Timeout)
	case l.client.MaxAge < 0:
		return fmt.Errorf("--max-age %v: give an age such as 2s", l.client.MaxAge)
	case l.client.MaxAge > 0 && l.client.Ordered:
		return errors.New("--ordered and --max-age are two ways to read: choose one")
	case l.client.MaxAge > 0 && l.options.Check:
		return errors.New("--check with --max-age: reads of an older state are not linearizable, and are not meant to be; leave one out")
	}
	if err := plan.Validate(); err != nil {
		return err
	}
	ctx := cmd.Context()
	access, err := connect(ctx, l.dir, plan.Timeout)
	if err != nil {
		return err
	}
	defer access.Close()
	witness := &load.Witness{GroupKey: access.Verifier}
	access.Verifier = witness
	for range plan.Clients {
		c, err := access.NewClient(rand.Reader)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.Close()) }()
		l.client.Client = c
		l.options.Stores = append(l.options.Stores, l.client)
	}
	l.options.Show = progress.New(cmd.ErrOrStderr())
	defer l.options.Show.Close()
	report, err := load.Run(ctx, l.options)
	if err != nil {
		return err
	}
	l.options.Show.Close()
	report.Unverified = int(witness.Refused.Load())
	report.ReadsAre = l.client.ReadsAre()
	return errors.Join(l.output.write(cmd.OutOrStdout(), report), report.Failed())
}

// connect opens a cluster, and waits a while for it.
func connect(ctx context.Context, dir string, timeout time.Duration) (*cluster.Access, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return cluster.Connect(ctx, cluster.Dir(dir))
}

func newLoadMergeCommand() *cobra.Command {
	var output reportOutput
	cmd := &cobra.Command{
		Use:   "merge FILE...",
		Short: "Sum up the reports of several machines that measured one cluster at the same time",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			var reports []*load.Report
			for _, name := range names {
				text, err := files.Read(name, maxInput)
				if err != nil {
					return err
				}
				report := new(load.Report)
				if err := json.Unmarshal(text, report); err != nil {
					return fmt.Errorf("%s is no report of `reseal load --json`: %w", name, err)
				}
				reports = append(reports, report)
			}
			merged, err := load.Merge(reports)
			if err != nil {
				return err
			}
			return errors.Join(output.write(cmd.OutOrStdout(), merged), merged.Failed())
		},
	}
	output.addFlags(cmd)
	return cmd
}
