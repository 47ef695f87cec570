// Properties of encoding and decoding over a number of random cases.
#ifndef CARAVAN_TESTS_PROPERTY_ROUND_TRIP_H_
#define CARAVAN_TESTS_PROPERTY_ROUND_TRIP_H_

namespace caravan::text {

// Decoding the ids of any valid text gives the text.
void ExpectRoundTrips(int cases);

// However ids arrive, the pieces together are the text of decoding at once,
// and what was given is never taken back.
void ExpectEverySplitDecodesAlike(int cases);

}  // namespace caravan::text

#endif  // CARAVAN_TESTS_PROPERTY_ROUND_TRIP_H_
