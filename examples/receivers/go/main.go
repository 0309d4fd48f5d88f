// A receiver for Pipelet's webhooks, with Go's standard library alone.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Older and newer signatures are refused, so that a recorded request can't be sent again.
const tolerance = 5 * time.Minute

type event struct {
	Event     string `json:"event"`
	StationID string `json:"station_id"`
}

type receiver struct {
	secret     string
	signingKey []byte

	// In production, use a database table with a unique key on the id instead, and write the
	// work in the same transaction: then neither is lost when this process ends.
	mutex sync.Mutex
	seen  map[string]bool
	work  chan event
}

func (r *receiver) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodPost {
		response.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, 2<<20))
	if err != nil {
		response.WriteHeader(http.StatusBadRequest)
		return
	}
	shown := []byte(request.Header.Get("X-Webhook-Secret"))
	if subtle.ConstantTimeCompare(shown, []byte(r.secret)) != 1 || !r.verify(request.Header, body) {
		response.WriteHeader(http.StatusUnauthorized)
		return
	}
	var received event
	if err := json.Unmarshal(body, &received); err != nil {
		response.WriteHeader(http.StatusBadRequest)
		return
	}
	if !r.accept(request.Header.Get("Webhook-Id"), received) {
		response.WriteHeader(http.StatusServiceUnavailable) // Pipelet sends the event again later
		return
	}
	response.WriteHeader(http.StatusNoContent)
}

// verify checks the signature as Standard Webhooks defines it.
func (r *receiver) verify(header http.Header, body []byte) bool {
	id, timestamp := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return false
	}
	age := time.Since(time.Unix(seconds, 0))
	if age > tolerance || age < -tolerance {
		return false
	}
	mac := hmac.New(sha256.New, r.signingKey)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	expected := mac.Sum(nil)
	// There are several signatures while a secret is being rotated; one must match.
	for _, signature := range strings.Fields(header.Get("Webhook-Signature")) {
		decoded, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signature, "v1,"))
		if err == nil && strings.HasPrefix(signature, "v1,") && hmac.Equal(decoded, expected) {
			return true
		}
	}
	return false
}

// accept queues an event unless it was received before, and says whether there was room.
func (r *receiver) accept(id string, received event) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.seen[id] {
		return true
	}
	select {
	case r.work <- received:
		r.seen[id] = true
		return true
	default:
		return false
	}
}

func main() {
	secret := os.Getenv("WEBHOOK_SECRET")
	if secret == "" {
		log.Fatal("WEBHOOK_SECRET is not set")
	}
	encoded := strings.TrimPrefix(os.Getenv("SIGNING_SECRET"), "whsec_")
	signingKey, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(signingKey) == 0 {
		log.Fatal("SIGNING_SECRET is not a signing secret (whsec_…)")
	}
	r := &receiver{
		secret:     secret,
		signingKey: signingKey,
		seen:       make(map[string]bool),
		work:       make(chan event, 1000),
	}
	go func() {
		for received := range r.work {
			fmt.Println(received.Event, received.StationID)
		}
	}()
	listener, err := net.Listen("tcp", net.JoinHostPort(env("HOST", "127.0.0.1"), env("PORT", "3001")))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(os.Stderr, "listening on port", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, r))
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
