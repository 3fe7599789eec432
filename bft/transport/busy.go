package transport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// BusyError says that a replica has too much to do for this caller now, and when to come back. It
// travels as RESOURCE_EXHAUSTED with a RetryInfo.
type BusyError struct {
	After time.Duration
	Err   error
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("%v; come back in %s, or ask another replica", e.Err, e.After.Round(time.Millisecond))
}

func (e *BusyError) Unwrap() error { return e.Err }

// GoneError says that what a call asks for is not to be had any more, however often this replica is
// asked. It travels as FAILED_PRECONDITION.
type GoneError struct{ Err error }

func (e *GoneError) Error() string { return e.Err.Error() }

func (e *GoneError) Unwrap() error { return e.Err }

// refusal is the status by which a method's error travels.
func refusal(err error) error {
	var busy *BusyError
	switch {
	case errors.As(err, new(*GoneError)):
		return status.Error(codes.FailedPrecondition, err.Error())
	case !errors.As(err, &busy):
		return status.Error(codes.Unknown, err.Error())
	}
	s, failed := status.New(codes.ResourceExhausted, busy.Err.Error()).WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(busy.After)})
	if failed != nil {
		return status.Error(codes.ResourceExhausted, busy.Err.Error())
	}
	return s.Err()
}

// busy returns what a status says of when to come back, nil if nothing.
func busy(s *status.Status, err error) *BusyError {
	for _, detail := range s.Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok && s.Code() == codes.ResourceExhausted && retry.GetRetryDelay().IsValid() {
			return &BusyError{After: max(0, retry.GetRetryDelay().AsDuration()), Err: err}
		}
	}
	return nil
}

// Source names where a call comes from: the address of the client, without the port; for IPv6 the
// network of 64 bits, which belongs to one subscriber. It is empty when ctx is not that of a call.
func Source(ctx context.Context) string {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return ""
	}
	return host(p.Addr)
}
